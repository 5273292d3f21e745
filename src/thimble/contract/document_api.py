"""The verbs of the host document on the wire. The document itself is `contract.document`."""

from __future__ import annotations

from thimble.contract.common import In, Out
from thimble.contract.management import ConfirmWithin
from thimble.core.problem import Reason

#: Bytes of a document at most.
SIZE_MAX = 1 << 20


class DocumentText(In, frozen=True, kw_only=True):
    """A document as TOML. `source` is where it came from, for people.

    `confirm_within`: seconds after which a change of the management network is undone unless
    `management.confirm` keeps it, as with `management.change`; all else stays. 0: kept at once.
    """

    text: str
    source: str = ""
    confirm_within: ConfirmWithin = 0


class PlannedEffect(Out, frozen=True, kw_only=True):
    """One thing that applying would do, in words, and the verbs it is done with."""

    what: str
    subject: str  # such as `vm web1`
    verbs: tuple[str, ...]


class DocumentPlan(Out, frozen=True, kw_only=True):
    """What applying would do, in order, and all that stands in the way.

    `drift`: what is on the host and not in the document; it is never deleted.
    """

    sha256: str
    effects: tuple[PlannedEffect, ...]
    blockers: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()


class DocumentExport(Out, frozen=True, kw_only=True):
    """The document of this host as it is: its backup."""

    text: str


class DocumentState(Out, frozen=True, kw_only=True):
    """The document applied last, and how far the host has moved away from it since.

    `sha256` is empty when there never was one; `problem` is what came of the document found at boot.
    """

    sha256: str = ""
    source: str = ""
    applied: float = 0.0  # seconds since the epoch
    complete: bool = True  # false: applying it was cut off
    problem: str = ""
    changes: tuple[str, ...] = ()  # what applying it again would do
    drift: tuple[str, ...] = ()  # what it does not mention
