"""One HTTP answer: a body or a problem in bytes, with the headers every answer carries."""

from __future__ import annotations

import msgspec

from thimble.core.problem import Code, Problem
from thimble.http.request import Send

Headers = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"
PROBLEM = b"application/problem+json"

#: Nothing here is to be cached, framed, sniffed or run.
GUARDS: Headers = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)

_encoder = msgspec.json.Encoder()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    body: bytes = b""
    type: bytes = JSON
    headers: Headers = ()


def problem(error: Problem, more: Headers = (), *, status: int | None = None) -> Answer:
    """RFC 9457. `status`: when HTTP itself has a better one than the code's."""
    status = status or error.status
    wait = getattr(error, "retry_after", None)
    if wait is not None:
        more += ((b"retry-after", str(wait).encode()),)
    if error.code is Code.UNAUTHENTICATED:
        more += ((b"www-authenticate", b'Bearer realm="thimble"'),)
    body = _encoder.encode(msgspec.structs.replace(error.document(), status=status))
    return Answer(status=status, body=body, type=PROBLEM, headers=more)


def opening(answer: Answer, id: str) -> dict[str, object]:
    """The ASGI message that begins the answer, without its length."""
    headers = [*GUARDS, (b"x-request-id", id.encode()), *answer.headers]
    if answer.status != 204:
        headers.append((b"content-type", answer.type))
    return {"type": "http.response.start", "status": answer.status, "headers": headers}


async def send_whole(answer: Answer, id: str, send: Send) -> None:
    start = opening(answer, id)
    if answer.status != 204:
        start["headers"] += [(b"content-length", str(len(answer.body)).encode())]  # type: ignore[operator]
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})
