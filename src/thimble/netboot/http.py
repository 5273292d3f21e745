"""What neighbours ask over HTTP, as an ASGI application. Decides nothing: `Responder` says who gets what.

GET  /boot.ipxe                          the first script
GET  /snponly.efi                        iPXE, for UEFI HTTP boot
GET  /boot?serial=…                      the script of the machine that asks, or 403
GET  /n/TOKEN/{vmlinuz,initrd,thimble.toml}
POST /n/TOKEN/report
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from thimble.http.request import Receive, Scope, Send
from thimble.http.server import Server

if TYPE_CHECKING:
    from thimble.http.protocol import Asgi

PIECE = 256 * 1024
REPORT_MAX = 64 * 1024


async def listen(asgi: Asgi, address: str, port: int) -> Callable[[], Awaitable[None]]:
    """Serve plain HTTP there; what ends that. Raises `Problem` IN_USE, FORBIDDEN or FAILED."""
    server = Server(asgi, tls=None)
    await server.listen(address, port)
    return server.close


class Span(msgspec.Struct, frozen=True):
    """A part of a file, in bytes."""

    path: Path
    offset: int
    size: int


class Answers(Protocol):
    """Answers; None is refused."""

    def first(self) -> str: ...
    def loader(self) -> Span | None: ...
    async def boot(self, peer: str, query: bytes) -> str | None: ...
    def part(self, token: str, name: str) -> Span | str | None: ...
    def sent(self, token: str, name: str, count: int, *, whole: bool) -> None: ...
    def report(self, token: str, peer: str, body: bytes) -> bool: ...


def application(responder: Answers) -> Asgi:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        peer = (scope.get("client") or ("", 0))[0].removeprefix("::ffff:")
        method, words = scope["method"], scope["path"].strip("/").split("/")
        token, name = (words[1], words[2]) if len(words) == 3 and words[0] == "n" else ("", "")
        answer: Span | str | None = None
        status = 404
        if method == "POST" and name == "report":
            body = await _body(receive)
            status = 204 if body is not None and responder.report(token, peer, body) else 403
        elif method not in ("GET", "HEAD"):
            status = 405
        elif words == ["boot.ipxe"]:
            answer = responder.first()
        elif words == ["snponly.efi"]:
            answer = responder.loader()
        elif words == ["boot"]:
            answer, status = await responder.boot(peer, scope.get("query_string", b"")), 403
        elif token:
            answer = responder.part(token, name)
        if isinstance(answer, Span):
            await _span(
                answer, method, send, lambda count, whole: responder.sent(token, name, count, whole=whole)
            )
            return
        data = (answer or "").encode()
        if method == "GET" and answer is not None and token:
            responder.sent(token, name, len(data), whole=True)
        await _head(send, 200 if answer is not None else status, len(data))
        await send({"type": "http.response.body", "body": data if method == "GET" else b""})

    return app


async def _head(send: Send, status: int, length: int) -> None:
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(length).encode())]
    headers = headers if status != 204 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _span(span: Span, method: str, send: Send, sent: Callable[[int, bool], None]) -> None:
    await _head(send, 200, span.size)
    if method == "HEAD":
        await send({"type": "http.response.body", "body": b""})
        return
    left = span.size
    with await asyncio.to_thread(span.path.open, "rb") as file:
        file.seek(span.offset)
        while left:
            piece = await asyncio.to_thread(file.read, min(PIECE, left))
            if not piece:
                return  # cut short, and the length says so
            left -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
            sent(len(piece), left == 0)


async def _body(receive: Receive) -> bytes | None:
    data, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        data += message.get("body", b"")
        if len(data) > REPORT_MAX:
            return None
        more = message.get("more_body", False)
    return data
