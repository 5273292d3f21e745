"""What a terminal shows of the bytes it got: as much of a VT as the console UI needs. For tests."""

from __future__ import annotations

import re

_CSI = re.compile(r"\x1b\[([?\d;]*)([A-Za-z@])")
_OTHER = re.compile(r"\x1b(?:[()][A-Z0-9]|\]P.{7}|\]R|[78=>])", re.DOTALL)


class Screen:
    """Feed it bytes; `text` is what can be read. `cursor` is (column, row)."""

    def __init__(self, w: int = 80, h: int = 24) -> None:
        self.w, self.h = w, h
        self.cells = [[" "] * w for _ in range(h)]
        self.x = self.y = 0
        self.insert = False
        self.outside = False  # something was drawn where nothing is
        self._rest = ""

    @property
    def cursor(self) -> tuple[int, int]:
        return self.x, self.y

    @property
    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.cells]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def feed(self, data: bytes) -> None:
        text, self._rest = self._rest + data.decode("utf-8", "replace"), ""
        at = 0
        while at < len(text):
            letter = text[at]
            if letter == "\x1b":
                found = _CSI.match(text, at) or _OTHER.match(text, at)
                if found is None:
                    if len(text) - at < 12:  # cut off in the middle
                        self._rest = text[at:]
                        return
                    at += 1
                    continue
                if found.re is _CSI:
                    self._control(found[1], found[2])
                at = found.end()
                continue
            at += 1
            self._letter(letter)

    def _letter(self, letter: str) -> None:
        if letter == "\r":
            self.x = 0
        elif letter == "\n":
            self._down()
        elif letter == "\b":
            self.x = max(0, self.x - 1)
        elif letter >= " ":
            if self.x >= self.w:
                self.x = 0
                self._down()
            row = self.cells[self.y]
            if self.insert:
                row.insert(self.x, letter)
                del row[self.w :]
            else:
                row[self.x] = letter
            self.x += 1

    def _down(self) -> None:
        if self.y + 1 < self.h:
            self.y += 1
        else:
            self.cells = [*self.cells[1:], [" "] * self.w]

    def _control(self, given: str, what: str) -> None:
        numbers = [int(word) if word.isdigit() else 0 for word in given.lstrip("?").split(";")]
        first = numbers[0]
        if what == "H":
            row, column = max(1, first), max(1, numbers[1] if len(numbers) > 1 else 1)
            self.outside = self.outside or ((row > self.h or column > self.w) and row != 999)
            self.y, self.x = min(row, self.h) - 1, min(column, self.w) - 1
        elif what == "K":
            self.cells[self.y][self.x :] = [" "] * (self.w - self.x)
        elif what == "J" and first in (0, 2):
            self.cells = [[" "] * self.w for _ in range(self.h)]
        elif what in "hl" and given == "4":
            self.insert = what == "h"
        elif what in "hl" and given == "?1049":
            self.cells = [[" "] * self.w for _ in range(self.h)]
