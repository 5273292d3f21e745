"""What a promise is and whether it is kept; pure.

A `Row` holds every sample of ours and of the peer's from one run, paired by round, and what it is held to.
Ratios are taken pair by pair and quoted as least, median and greatest: seconds drift by the hour, ratios of
neighbours do not. A row without a promise is context; one without samples is not measured, hence not kept.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Bound(StrEnum):
    """How the limit of a row is meant."""

    TIMES_BETTER = "times better"  # peer ÷ ours, at least
    TIMES_OF_PEER = "times the peer's"  # ours ÷ peer, at most
    AT_MOST = "at most"  # ours itself, at most


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Least, median, greatest."""

    least: float
    median: float
    greatest: float


class Promised(msgspec.Struct, frozen=True, kw_only=True):
    """The limit: `limit` in the row's unit for AT_MOST, a plain number for ratios."""

    bound: Bound
    limit: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    promise: str
    what: str
    unit: str
    ours: tuple[float, ...]
    peer: str = ""
    theirs: tuple[float, ...] = ()
    promised: Promised | None = None
    note: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a row's samples say. `ratio` is peer ÷ ours for TIMES_BETTER, else ours ÷ peer."""

    ours: Spread | None
    theirs: Spread | None
    ratio: Spread | None
    kept: bool | None


def spread(values: Sequence[float]) -> Spread | None:
    """None when there are none."""
    if not values:
        return None
    return Spread(least=min(values), median=statistics.median(values), greatest=max(values))


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Pair by pair. Sides of different length have no pairs: then every one against the other's median."""
    if len(above) == len(below):
        return [a / b for a, b in zip(above, below, strict=True) if b]
    middle = statistics.median(below) if below else 0.0
    return [a / middle for a in above] if middle else []


def judge(row: Row) -> Verdict:
    """The row's verdict; `kept` is None for context and for what was not measured."""
    better = row.promised is not None and row.promised.bound is Bound.TIMES_BETTER
    pairs = ratios(row.theirs, row.ours) if better else ratios(row.ours, row.theirs)
    ours, ratio = spread(row.ours), spread(pairs)
    return Verdict(ours=ours, theirs=spread(row.theirs), ratio=ratio, kept=_kept(row.promised, ours, ratio))


def _kept(promised: Promised | None, ours: Spread | None, ratio: Spread | None) -> bool | None:
    if promised is None:
        return None
    measured = ours if promised.bound is Bound.AT_MOST else ratio
    if measured is None:
        return None
    if promised.bound is Bound.TIMES_BETTER:
        return measured.median >= promised.limit
    return measured.median <= promised.limit
