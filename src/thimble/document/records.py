"""What is kept of documents.

    <state>/document/applied.json      the one applied last
    <state>/document/applying.json     the one that is being applied, from before the first effect until after
                                       the last: when it is there and nobody applies, that was cut off
    <state>/document/found.json        the one found at boot and applied last: until it
                                       changes, what was applied since stays

All are readable by root alone.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

#: The ids of the records.
APPLIED, APPLYING, FOUND = "applied", "applying", "found"


def digest(text: str) -> str:
    """What a document is known by: its SHA-256."""
    from hashlib import sha256

    return sha256(text.encode()).hexdigest()


class DocumentRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: str
    source: str
    sha256: str
    applied: float


def warnings(state: Path, *, problem: str, busy: bool) -> tuple[str, ...]:
    """What an administrator should know of documents. `problem`: with the one found at boot; `busy`: one is
    being applied.
    """
    if problem:
        return (f"document {problem}",)
    if (state / "document" / f"{APPLYING}.json").exists() and not busy:
        return ("a document was not applied to its end: `thimble document show` tells what is left",)
    return ()
