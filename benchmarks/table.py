"""The table and the report, from rows; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from benchmarks.promise import Bound, Promised, Row, Spread, Verdict, judge

HEADER = ("promise", "what", "Thimble", "peer", "peer's", "ratio min/median/max", "promised", "kept")


def figure(value: float, unit: str) -> str:
    """A number with three useful digits and its unit."""
    if unit == "s" and abs(value) < 0.1:
        value, unit = value * 1000, "ms"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}".rstrip()


def limit(promised: Promised | None, unit: str) -> str:
    """The promise in words."""
    if promised is None:
        return ""
    match promised.bound:
        case Bound.TIMES_BETTER:
            return f"peer ÷ ours ≥ {promised.limit:g}"
        case Bound.TIMES_OF_PEER:
            return f"ours ÷ peer ≤ {promised.limit:.3g}"
        case Bound.AT_MOST:
            return f"≤ {figure(promised.limit, unit)}"


def verdict_word(row: Row, verdict: Verdict) -> str:
    """`yes`, `NO`, `not measured`, or nothing for context."""
    if verdict.kept is not None:
        return "yes" if verdict.kept else "NO"
    return "not measured" if row.promised else ""


def cells(row: Row) -> tuple[str, ...]:
    """One row as text."""
    verdict = judge(row)
    return (
        row.promise,
        row.what,
        _median(verdict.ours, row.unit),
        row.peer,
        _median(verdict.theirs, row.unit),
        _ratio(verdict.ratio),
        limit(row.promised, row.unit),
        verdict_word(row, verdict),
    )


def render(rows: Sequence[Row]) -> str:
    """An aligned table, notes below it."""
    lines = [HEADER, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    rule = "  ".join("─" * width for width in widths)
    text = [_line(lines[0], widths), rule, *(_line(line, widths) for line in lines[1:])]
    notes = [f"  {row.promise}, {row.what}: {row.note}" for row in rows if row.note]
    return "\n".join([*text, "", *notes] if notes else text)


def report(rows: Sequence[Row], machine: Mapping[str, object]) -> bytes:
    """The same for programs, with every sample."""
    found = [{**msgspec.to_builtins(row), "verdict": msgspec.to_builtins(judge(row))} for row in rows]
    return msgspec.json.format(msgspec.json.encode({"machine": machine, "rows": found}))


def _line(line: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _median(found: Spread | None, unit: str) -> str:
    return "" if found is None else figure(found.median, unit)


def _ratio(found: Spread | None) -> str:
    return "" if found is None else f"{found.least:.2f} / {found.median:.2f} / {found.greatest:.2f}"
