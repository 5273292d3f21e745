"""Rows of styled text: cleaned, cut and filled to a width. Pure.

Every character that leaves here takes one column: what is wider, narrower, or no text at all becomes `?`. So
a row is exactly as wide as its characters, and nothing is ever drawn outside.
"""

from __future__ import annotations

import textwrap
from functools import lru_cache

import msgspec

#: A row: (style, text) from left to right. Styles are those of terminal.PALETTE.
Row = tuple[tuple[str, str], ...]


class Glyphs(msgspec.Struct, frozen=True):
    """What lines and bars are drawn with."""

    full: str
    empty: str
    line: str
    marker: str
    more: str
    dot: str


UTF8 = Glyphs("█", "░", "─", "▸", "…", "•")
ASCII = Glyphs("#", ".", "-", ">", "~", "*")

#: Letters, signs and lines that take one column everywhere.
_NARROW = (
    (0x20, 0x7E), (0xA1, 0xAC), (0xAE, 0x2FF), (0x370, 0x377), (0x37A, 0x37E), (0x384, 0x482), (0x48A, 0x52F),
    (0x2010, 0x2027), (0x2030, 0x205E), (0x20A0, 0x20BF), (0x2190, 0x21FF), (0x2500, 0x25FF),
)  # fmt: skip
_ASCII = {"–": "-", "—": "-", "…": "~", "“": '"', "”": '"', "‘": "'", "’": "'", "•": "*", "→": ">", "×": "x"}


def clean(text: str, *, utf8: bool) -> str:
    """One column per character, on this terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_one(letter, utf8=utf8) for letter in text)


@lru_cache(maxsize=512)
def _one(letter: str, *, utf8: bool) -> str:
    if letter == "\t":
        return " "
    if not utf8 and not letter.isascii():
        return _ASCII.get(letter, "?")
    code = ord(letter)
    return letter if any(low <= code <= high for low, high in _NARROW) else "?"


class Pen:
    """Draws rows of width `w` on a terminal that knows UTF-8 or not."""

    def __init__(self, w: int, *, utf8: bool) -> None:
        self.w = max(1, w)
        self.utf8 = utf8
        self.glyphs = UTF8 if utf8 else ASCII

    def row(self, fill: str, *parts: tuple[str, str]) -> Row:
        """The parts from the left, cut or filled with the style `fill` to the width."""
        left, made = self.w, []
        for style, text in parts:
            text = clean(text, utf8=self.utf8)
            if len(text) > left:
                text = text[: max(0, left - 1)] + self.glyphs.more if left else ""
            if text:
                made.append((style, text))
                left -= len(text)
        if left:
            made.append((fill, " " * left))
        return tuple(made)

    def ends(self, fill: str, left: tuple[str, str], right: tuple[str, str]) -> Row:
        """One text at each end; the left one gives way."""
        last = clean(right[1], utf8=self.utf8)[: self.w]
        first = clean(left[1], utf8=self.utf8)
        room = max(0, self.w - len(last) - 1)
        if len(first) > room:
            first = first[: max(0, room - 1)] + self.glyphs.more if room else ""
        gap = self.w - len(first) - len(last)
        return self.row(fill, (left[0], first), (fill, " " * gap), (right[0], last))

    def wrapped(self, fill: str, text: str, *, indent: int = 2, hang: int = 0) -> list[Row]:
        """A paragraph in as many rows as it takes."""
        room = max(4, self.w - indent - 1)
        lines = textwrap.wrap(
            clean(text, utf8=self.utf8), room, subsequent_indent=" " * hang, break_on_hyphens=False
        ) or [""]
        return [self.row(fill, (fill, " " * min(indent, self.w - 1) + line)) for line in lines]

    def bar(self, share: float, cells: int) -> str:
        """How much of it is used."""
        cells = max(1, cells)
        used = round(max(0.0, min(1.0, share)) * cells)
        return self.glyphs.full * used + self.glyphs.empty * (cells - used)


def width(row: Row) -> int:
    return sum(len(text) for _, text in row)
