"""One HTTP answer: a value or a problem in bytes, with the headers every answer carries."""

from __future__ import annotations

import msgspec

from thimble.api.request import Send
from thimble.contract.common import DryRun, Listed, Nothing
from thimble.contract.verbs import PREFIX, Shape, Started, Verb
from thimble.core.problem import Code, Problem

Headers = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"
PROBLEM = b"application/problem+json"
ARCHIVE = b"application/gzip"

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


def value(verb: Verb, output: object) -> Answer:
    """What `verb` gave, with the status of its shape."""
    if isinstance(output, Nothing):
        return Answer(status=204)
    if verb.shape is Shape.DOWNLOAD and isinstance(output, bytes):
        name = f"thimble-{verb.name.rpartition('.')[2]}.tar.gz"
        shown = (b"content-disposition", f'attachment; filename="{name}"'.encode())
        return Answer(status=200, body=output, type=ARCHIVE, headers=(shown,))
    body = _encoder.encode(output)
    if isinstance(output, DryRun):
        return Answer(status=200, body=body)
    if isinstance(output, Started):
        where = f"{PREFIX}/tasks/{output.task.id}".encode()
        return Answer(status=202, body=body, headers=((b"location", where),))
    made = verb.shape is Shape.UPLOAD or verb.name.endswith(".create")
    return Answer(status=201 if made else 200, body=body, headers=_etag(output))


def _etag(output: object) -> Headers:
    """The revision for `If-Match`; a list's `rev` is a place in the event stream instead."""
    rev = getattr(output, "rev", None)
    return () if rev is None or isinstance(output, Listed) else ((b"etag", b'"%d"' % rev),)


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
