"""What is kept of documents.

    <state>/document/applied.json      the one applied last
    <state>/document/applying.json     the one that is being applied, from before the first effect until after
                                       the last: when it is there and nobody applies, that was cut off

Both are readable by root alone.
"""

from __future__ import annotations

import msgspec


class DocumentRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: str
    source: str
    sha256: str
    applied: float
