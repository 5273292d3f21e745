"""(model, w, h) → exactly h rows of exactly w columns, and where the cursor is. Pure.

From 40×12 on the screens; below that a short plain status, so that even a tiny window says something.
"""

from __future__ import annotations

import msgspec

from thimble.dcui import view_home, view_pages
from thimble.dcui.draw import Pen, Row
from thimble.dcui.model import Model

SMALL_W, SMALL_H = 40, 12


class Frame(msgspec.Struct, frozen=True):
    """`cursor`: (column, row), when somebody writes."""

    rows: tuple[Row, ...]
    cursor: tuple[int, int] | None = None


def view(model: Model, w: int, h: int, *, utf8: bool = False) -> Frame:
    w, h = max(1, w), max(1, h)
    pen = Pen(w, utf8=utf8)
    if w < SMALL_W or h < SMALL_H:
        return _fitted(pen, h, view_home.small(model, pen, h), None)
    if model.page is None:
        return _fitted(pen, h, view_home.home(model, pen, h), None)
    rows, cursor = view_pages.page(model, pen, h)
    return _fitted(pen, h, rows, cursor)


def _fitted(pen: Pen, h: int, rows: list[Row], cursor: tuple[int, int] | None) -> Frame:
    rows = rows[:h] + [pen.row("body")] * (h - len(rows))
    if cursor is not None:
        cursor = (max(0, min(cursor[0], pen.w - 1)), max(0, min(cursor[1], h - 1)))
    return Frame(tuple(rows), cursor)
