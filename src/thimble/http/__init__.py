"""An HTTP/1.1 and WebSocket server that knows no verb: bytes on a socket ↔ ASGI.
Who serves what is said by `api` and `netboot`.

server ─► protocol, websocket      sockets, TLS, limits ─► one connection over h11 ↔ ASGI
request, answer                    what came, and one answer in bytes; a `Problem` as RFC 9457
"""
