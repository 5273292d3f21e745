"""What a plan consists of: effects in words, each with the verbs that do it, and blockers. Pure."""

from __future__ import annotations

import msgspec

from thimble.core.problem import Code
from thimble.document.positions import Path

LOCAL = "local"
#: The switch that PID 1 makes over the management network's card.
UPLINK = "uplink"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a service's verb. `probe`: what a dry run is asked instead of `input`."""

    verb: str
    path: dict[str, str] = {}
    input: msgspec.Struct | None = None
    probe: msgspec.Struct | None = None


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """`at`: the part of the document that wants it; reasons of its verbs are about fields below that."""

    what: str
    subject: str
    at: Path
    asks: tuple[Ask, ...]


class Blocker(msgspec.Struct, frozen=True, kw_only=True):
    at: Path
    message: str
    code: Code = Code.CONFLICT
