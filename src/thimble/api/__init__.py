"""The HTTP facade: binds the contract's verbs to services. Decides nothing, keeps no state.

app                            ASGI ↔ one verb of the contract: route, sign in, decode, call, encode
binding, routes, codec         which verb, and what it is given         output    what it gave, in bytes
sse, sockets                   what does not end with one answer        pages, metrics
"""
