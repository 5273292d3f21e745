"""One HTTP request as the rest of the facade sees it: segments, query, headers, body. Trusts nothing.

Percent-encoding is undone after the path is split, so an encoded slash never makes a new segment. What
cannot be read is a `Problem` MALFORMED.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from thimble.core.problem import Code, Problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Request:
    """`id` names it in the log and the answer."""

    def __init__(self, scope: Scope, receive: Receive, id: str) -> None:
        self.id = id
        self.method: str = scope.get("method", "GET")
        self.raw_path: bytes = scope.get("raw_path") or str(scope["path"]).replace("%", "%25").encode()
        self.raw_query: bytes = scope.get("query_string", b"")
        self.peer: str = (scope.get("client") or ("", 0))[0]
        self.since: float = scope.get("since", 0.0)  # when the connection was made, by the boot clock
        self.headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            self.headers[key] = value.decode("latin-1")
        self._receive = receive
        self._ended = False

    @property
    def segments(self) -> list[str]:
        """The path's segments, decoded."""
        return [unquote(piece) for piece in self.raw_path.split(b"/")[1:]]

    def query(self) -> dict[str, str]:
        """The query's parameters; each may be given once."""
        found: dict[str, str] = {}
        for pair in self.raw_query.split(b"&"):
            if not pair:
                continue
            name, _, value = (unquote(part.replace(b"+", b" ")) for part in pair.partition(b"="))
            if name in found:
                raise Problem(Code.MALFORMED, f"the parameter {name!r} is given twice", where=f"?{name}")
            found[name] = value
        return found

    @property
    def length(self) -> int | None:
        """The body's length as announced; None when it was not."""
        text = self.headers.get("content-length")
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise Problem(Code.MALFORMED, "Content-Length is not a number")
        return int(text)

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises `Problem` TOO_LARGE beyond `limit` bytes, before reading more."""
        if (self.length or 0) > limit:
            raise too_large(limit)
        pieces: list[bytes] = []
        size = 0
        async for piece in self.stream():
            size += len(piece)
            if size > limit:
                raise too_large(limit)
            pieces.append(piece)
        return b"".join(pieces)

    async def stream(self) -> AsyncIterator[bytes]:
        """The body piece by piece. Raises `Problem` MALFORMED when it ends before its time."""
        got = 0
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                of = f" of {self.length}" if self.length is not None else ""
                raise Problem(
                    Code.MALFORMED,
                    f"the body was cut off after {got}{of} bytes",
                    hint="Send it again.",
                )
            self._ended = not message.get("more_body", False)
            if piece := message.get("body", b""):
                got += len(piece)
                yield piece

    async def gone(self) -> None:
        """Return when the client has left. Only after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def cookie(self, name: str) -> str:
        """The value of one cookie; empty when there is none."""
        for pair in self.headers.get("cookie", "").split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name:
                return value
        return ""

    @property
    def same_origin(self) -> bool:
        """Nothing says that another site's page caused this request."""
        origin = self.headers.get("origin")
        if self.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return False
        return origin is None or origin.lower() == "https://" + self.headers.get("host", "").lower()


def too_large(limit: int) -> Problem:
    return Problem(
        Code.TOO_LARGE,
        f"the body is larger than {limit} bytes",
        hint="Only image uploads may be large.",
    )


def unquote(raw: bytes) -> str:
    """Percent-decoded text. Raises `Problem` MALFORMED on bad escapes, bad UTF-8 and NUL."""
    try:
        head, *rest = raw.split(b"%")
        if rest:
            raw = head + b"".join(_byte(piece[:2]) + piece[2:] for piece in rest)
        text = raw.decode()
    except ValueError:  # of int() and of decode()
        raise Problem(Code.MALFORMED, "the address has a bad percent escape or is not UTF-8") from None
    if "\0" in text:
        raise Problem(Code.MALFORMED, "the address holds a NUL")
    return text


def _byte(digits: bytes) -> bytes:
    if len(digits) != 2 or not digits.isalnum():
        raise ValueError
    return bytes((int(digits, 16),))


def plain(address: str) -> str:
    """An IPv4 peer as such, though it came over the IPv6 socket."""
    return address[7:] if address.startswith("::ffff:") else address


def network(peer: str) -> str:
    """What one party surely has of addresses: one IPv4, or a /64 of IPv6."""
    if ":" not in peer or peer.startswith("::ffff:"):
        return peer
    head, _, _ = peer.partition("%")
    front, gap, back = head.partition("::")
    words = front.split(":")
    if gap:
        tail = back.split(":") if back else []
        words += ["0"] * (8 - len(words) - len(tail)) + tail
    return ":".join(words[:4]) + "::/64"
