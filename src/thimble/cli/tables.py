"""Answers as text: tables that fit the terminal, facts about one thing, problems, JSON. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import msgspec

from thimble.core.problem import Problem, Reason


class Column(msgspec.Struct, frozen=True):
    """`least` characters stay when the table must shrink; None: it never does. `right` aligns numbers."""

    title: str
    least: int | None = None
    right: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int | None = None) -> str:
    """Columns two spaces apart; the widest that may shrink give way until it fits `width` (None: any)."""
    cells = [[column.title.upper() for column in columns], *[[_plain(cell) for cell in row] for row in rows]]
    widths = [max(_width(row[number]) for row in cells) for number in range(len(columns))]
    excess = 0 if width is None else sum(widths) + 2 * (len(widths) - 1) - width
    while excess > 0:
        able = [
            (widths[number] - column.least, number)
            for number, column in enumerate(columns)
            if column.least is not None and widths[number] > column.least
        ]
        if not able:
            break
        widths[max(able)[1]] -= 1
        excess -= 1
    return "\n".join(_row(columns, widths, row) for row in cells)


def _row(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str]) -> str:
    parts = []
    for column, width, cell in zip(columns, widths, row, strict=True):
        text = _cut(cell, width)
        gap = " " * (width - _width(text))
        parts.append(gap + text if column.right else text + gap)
    return "  ".join(parts).rstrip()


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while _width(text) > width - 1:
        text = text[:-1]
    return text + "…"


def _width(text: str) -> int:
    """Columns on a terminal: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(mark) else 2 if unicodedata.east_asian_width(mark) in "WF" else 1
        for mark in text
    )


def _plain(text: str) -> str:
    """Without control characters: what comes from a guest must not drive the terminal."""
    return "".join(mark if mark.isprintable() else " " for mark in text)


def safe(text: str) -> str:
    """Many lines of untrusted text, made safe for a terminal: line ends and tabs stay, escapes go."""
    return "".join(mark for mark in text.replace("\r\n", "\n") if mark.isprintable() or mark in "\n\t")


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """`name  value` lines; values of many lines are indented, empty ones left out."""
    shown = [(name, value) for name, value in pairs if value]
    wide = max((len(name) for name, _ in shown), default=0)
    return "\n".join(
        f"{name:<{wide}}  " + value.replace("\n", "\n" + " " * (wide + 2)) for name, value in shown
    )


def problem_text(problem: Problem) -> str:
    """What went wrong, every reason with its path, what to do."""
    lines = [f"error: {problem.detail} ({problem.code})"]
    lines += [reason_line(reason) for reason in problem.reasons if not _repeats(problem, reason)]
    if problem.hint:
        lines.append(f"hint: {problem.hint}")
    return "\n".join(lines)


def _repeats(problem: Problem, reason: Reason) -> bool:
    return not reason.path and reason.message == problem.detail


def reason_line(reason: Reason) -> str:
    """One blocker, indented."""
    where = f"{reason.line}:{reason.column}: " if reason.line else ""
    return f"  {where}{reason.path}: {reason.message}" if reason.path else f"  {where}{reason.message}"


def as_json(value: msgspec.Struct | Mapping[str, object] | Sequence[object]) -> str:
    """The wire's own JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
