"""What a verb gave, as an HTTP answer."""

from __future__ import annotations

import msgspec

from thimble.contract.common import DryRun, Listed, Nothing
from thimble.contract.verbs import PREFIX, Shape, Started, Verb
from thimble.http.answer import Answer, Headers

ARCHIVE = b"application/gzip"

_encoder = msgspec.json.Encoder()


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
    return Answer(status=201 if verb.creates else 200, body=body, headers=_etag(output))


def _etag(output: object) -> Headers:
    """The revision for `If-Match`; a list's `rev` is a place in the event stream instead."""
    rev = getattr(output, "rev", None)
    return () if rev is None or isinstance(output, Listed) else ((b"etag", b'"%d"' % rev),)
