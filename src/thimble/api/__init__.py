"""The HTTP facade: binds the contract's verbs to services. Decides nothing, keeps no state but sessions.

server ─► http, websocket      bytes on a socket ↔ ASGI
app                            ASGI ↔ one verb of the contract: route, sign in, decode, call, encode
auth, accounts                 who may do what; users, sessions, tokens
events, sockets                what does not end with one answer
"""
