"""The pages: a head, a title, what the page is, a word, and the keys. Pure."""

from __future__ import annotations

from typing import assert_never

from thimble.dcui.draw import Pen, Row
from thimble.dcui.model import Model
from thimble.dcui.pages import ConfirmPage, Editor, Form, Menu, Proposal, Text, Wait
from thimble.dcui.view_home import keys, notice

Cursor = tuple[int, int] | None
#: Rows above and below what a page shows of its own.
ABOVE, BELOW = 3, 2


def page(model: Model, pen: Pen, h: int) -> tuple[list[Row], Cursor]:
    shown = model.page
    assert shown is not None
    who = f"{model.session.user} ({model.session.role})" if model.session else "not signed in"
    head = pen.ends("head", ("title", f"  {model.name}"), ("head", f"{who}  "))
    room = h - ABOVE - BELOW
    body, cursor, known = _body(model, pen, room)
    body = body[:room] + [pen.row("body")] * (room - len(body))
    rows = [head, pen.row("gold", ("gold title", f"  {shown.title}")), pen.row("body"), *body]
    rows += [notice(model, pen, "body"), keys(pen, known)]
    return rows, (cursor[0], cursor[1] + ABOVE) if cursor else None


def _body(model: Model, pen: Pen, room: int) -> tuple[list[Row], Cursor, tuple[tuple[str, str], ...]]:
    shown = model.page
    match shown:
        case Menu():
            return (
                menu(shown, pen, room),
                None,
                (("Enter", "Choose"), ("Up/Down", "Move"), ("Esc", "Back"), ("F5", "Refresh")),
            )
        case Form():
            rows, cursor = form(shown, pen, room)
            return rows, cursor, (("Enter", "Next/Go"), ("F2", "Go"), ("Up/Down", "Move"), ("Esc", "Back"))
        case Text():
            return (
                text(shown, pen, room),
                None,
                (("Enter", "Go on"), ("Up/Down", "Scroll"), ("F5", "Refresh"), ("Esc", "Back")),
            )
        case Editor():
            rows, cursor = editor(shown, pen, room)
            return (
                rows,
                cursor,
                (("F2", "Check it"), ("Ctrl-D", "the same"), ("Ctrl-K", "Delete line"), ("Esc", "Back")),
            )
        case Proposal():
            known = (("Enter", "Do it"), ("Esc", "Do not")) if shown.act else (("Esc", "Back"),)
            return proposal(shown, pen, room), None, known
        case Wait():
            return wait(shown, model, pen), None, (("Esc", "Leave it running"),)
        case ConfirmPage():
            return trial(shown, model, pen), None, (("K", "Keep"), ("U", "Undo now"), ("Esc", "Back"))
        case None:
            return [], None, ()
        case _:
            assert_never(shown)


def _intro(lines: tuple[str, ...], pen: Pen) -> list[Row]:
    rows = [row for line in lines for row in pen.wrapped("body", line)]
    return [*rows, pen.row("body")] if rows else []


def menu(shown: Menu, pen: Pen, room: int) -> list[Row]:
    """The items, as many as fit around the cursor, and the help of the one under it."""
    rows = _intro(shown.intro, pen)[: max(0, room - 4)]
    if shown.head:
        rows.append(pen.row("body", ("dim", f"    {shown.head}")))
    left = max(1, room - len(rows) - 2)
    first = max(0, min(shown.cursor - left // 2, len(shown.items) - left))
    for number, item in enumerate(shown.items[first : first + left], first):
        chosen = number == shown.cursor
        label = item.label if shown.head else f"{number + 1}  {item.label}"
        mark = f"  {pen.glyphs.marker} " if chosen else "    "
        style = "chosen" if chosen else "body"
        rows.append(pen.row(style, (style, mark + label)))
    help_ = shown.items[shown.cursor].help if shown.items else ""
    return [*rows, pen.row("body"), *(pen.wrapped("body", help_, indent=4)[:2] if help_ else [])]


def form(shown: Form, pen: Pen, room: int) -> tuple[list[Row], Cursor]:
    rows = _intro(shown.intro, pen)[: max(0, room - len(shown.fields) - 3)]
    wide = max((len(field.label) for field in shown.fields), default=0) + 2
    start = min(2 + wide, max(2, pen.w // 2))
    space = max(4, pen.w - start - 4)
    cursor: Cursor = None
    for number, field in enumerate(shown.fields):
        value = "*" * len(field.value) if field.secret else field.value
        chosen = number == shown.cursor
        from_ = max(0, field.place - space + 1)
        window = value[from_ : from_ + space]
        label = f"{pen.glyphs.marker if chosen else ' '} {field.label}"[: start - 1].ljust(start)
        if field.choices:
            parts = [("chosen" if choice == value else "body", f" {choice} ") for choice in field.choices]
            parts = [(style, f"[{word.strip()}]" if style == "chosen" else word) for style, word in parts]
        else:
            parts = [("field", window.ljust(space))]
            if chosen:
                cursor = (start + field.place - from_, len(rows))
        rows.append(pen.row("body", ("title" if chosen else "body", label), *parts))
    rows.append(pen.row("body"))
    help_ = shown.fields[shown.cursor].help if shown.fields else ""
    rows += pen.wrapped("body", help_) if help_ else []
    for line in shown.note:
        rows += _alarm(pen, line) if line else [pen.row("body")]
    return rows, cursor


def _alarm(pen: Pen, line: str) -> list[Row]:
    return [tuple(("bad", part) for _, part in row) for row in pen.wrapped("bad", f"! {line}", hang=2)]


def text(shown: Text, pen: Pen, room: int) -> list[Row]:
    rows: list[Row] = []
    for number in range(shown.top, len(shown.lines)):
        line = shown.lines[number]
        rows += _alarm(pen, line) if shown.alarm and number == 0 else pen.wrapped("body", line, hang=2)
        if len(rows) >= room - 1:
            break
    more = shown.top + room - 1 < len(shown.lines)
    place = f"{shown.top + 1} of {len(shown.lines)}  " if more or shown.top else ""
    return [
        *rows[: room - 1],
        *[pen.row("body")] * (room - 1 - len(rows)),
        pen.row("body", ("dim", f"  {place}{shown.hint}")),
    ]


def editor(shown: Editor, pen: Pen, room: int) -> tuple[list[Row], Cursor]:
    left = max(1, room - 1)
    top = max(0, min(shown.row - left // 2, len(shown.lines) - left))
    space = max(4, pen.w - 6)
    col = min(shown.col, len(shown.lines[shown.row]))
    from_ = max(0, col - space + 1)
    rows = [
        pen.row("field", ("dim", f"{number + 1:>4} "), ("field", shown.lines[number][from_ : from_ + space]))
        for number in range(top, min(len(shown.lines), top + left))
    ]
    rows += [pen.row("field")] * (left - len(rows))
    rows.append(pen.row("body", ("dim", f"  line {shown.row + 1}, column {col + 1}")))
    return rows, (5 + col - from_, shown.row - top)


def proposal(shown: Proposal, pen: Pen, room: int) -> list[Row]:
    rows: list[Row] = []
    if shown.blockers:
        rows.append(pen.row("body", ("bad", "  Blocked by:")))
        for line in shown.blockers:
            rows += _alarm(pen, line)
        rows.append(pen.row("body"))
    if shown.effects:
        rows.append(pen.row("body", ("title", "  What it does:" if shown.act else "  What it would do:")))
        for line in shown.effects:
            rows += pen.wrapped("body", f"{pen.glyphs.dot} {line}", indent=4, hang=2)
    elif not shown.blockers:
        rows.append(pen.row("body", ("body", "  Nothing: it is already so.")))
    if shown.warnings:
        rows.append(pen.row("body"))
        for line in shown.warnings:
            rows += pen.wrapped("body", f"! {line}", hang=2)
    top = min(shown.top, max(0, len(rows) - room + 1))
    return rows[top : top + room]


def wait(shown: Wait, model: Model, pen: Pen) -> list[Row]:
    task, seconds = shown.task, max(0, int(model.now - shown.since))
    rows: list[Row] = []
    if task is not None:
        cells = max(10, min(50, pen.w - 16))
        rows.append(
            pen.row(
                "body",
                ("body", "  "),
                ("bar", pen.bar(task.progress, cells)),
                ("body", f" {task.progress:>4.0%}"),
            )
        )
        rows += [pen.row("body"), pen.row("body", ("body", f"  {task.step or 'working'}"))]
    else:
        rows += pen.wrapped("body", f"{shown.note or 'asking the host'} ...")
    if task is not None and shown.note:
        rows += pen.wrapped("body", shown.note)
    return [*rows, pen.row("body", ("dim", f"  {seconds} s"))]


def trial(shown: ConfirmPage, model: Model, pen: Pen) -> list[Row]:
    left = max(0, int(shown.until - model.clock))
    rows = [row for line in shown.lines for row in pen.wrapped("body", line)]
    rows += [pen.row("body"), pen.row("body", ("bad", f"  It is undone by itself in {left} s."))]
    both = [
        ("chosen" if number == shown.choice else "body", word)
        for number, word in enumerate(("Keep it", "Undo now"))
    ]
    parts = [(style, f" {pen.glyphs.marker if style == 'chosen' else ' '} {word}  ") for style, word in both]
    return [*rows, pen.row("body"), pen.row("body", ("body", "  "), *parts)]
