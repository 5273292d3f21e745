"""Where in a TOML text each key and value stands: `tomllib` does not tell. Pure.

Reads only text that `tomllib` has accepted, and so checks nothing itself (TOML v1.0.0). Line ends are single
newlines, as `tomllib` sees them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TypeAlias

import msgspec

Path: TypeAlias = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LONG = re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''.*?'''(?:'{0,2})", re.DOTALL)
_LITERAL = re.compile(r"'[^'\n]*'")
_SCALAR = re.compile(r"[^,\]}#\n]+")
_BLANK = re.compile(r"[ \t]*")
_BLANKS = re.compile(r"(?:[ \t\n]|#[^\n]*)*")


class Spot(msgspec.Struct, frozen=True):
    """A place in the text, both from 1."""

    line: int
    column: int


class Places:
    """Where things stand; what is not in the text itself is where the nearest thing around it is."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(mark.end() for mark in re.finditer("\n", text))]
        scanner = _Scanner(text)
        scanner.document()
        self._keys = scanner.keys
        self._values = scanner.values

    def key(self, path: Path) -> Spot:
        """Of the key that `path` ends with."""
        return self._spot(self._nearest(self._keys, path))

    def value(self, path: Path) -> Spot:
        """Of the value at `path`."""
        return self._spot(self._nearest(self._values, path))

    def _nearest(self, known: dict[Path, int], path: Path) -> int:
        while path and path not in known:
            path = path[:-1]
        return known.get(path, 0)

    def _spot(self, offset: int) -> Spot:
        line = bisect_right(self._starts, offset)
        return Spot(line, offset - self._starts[line - 1] + 1)


class _Scanner:
    """`keys` and `values`: offsets by path. `_counts`: how many elements an array of tables has so far."""

    def __init__(self, text: str) -> None:
        self.keys: dict[Path, int] = {}
        self.values: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._counts: dict[Path, int] = {}

    def document(self) -> None:
        table: Path = ()
        while self._skip(_BLANKS) < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        start = self._at
        many = self._text.startswith("[[", start)
        self._at += 2 if many else 1
        names = self._dotted()
        self._at = self._text.index("]", self._at) + (2 if many else 1)
        path: Path = ()
        for number, (name, offset) in enumerate(names):
            path += (name,)
            self._note(path, offset, start)
            if many and number == len(names) - 1:
                self._counts[path] = self._counts.get(path, 0) + 1
                self._note((*path, self._counts[path] - 1), start, start)
            if path in self._counts:
                path += (self._counts[path] - 1,)
        return path

    def _pair(self, table: Path) -> None:
        path = table
        for name, offset in self._dotted():
            path += (name,)
            self._note(path, offset, offset)
        self._at = self._text.index("=", self._at) + 1
        self._skip(_BLANK)
        self._value(path)

    def _dotted(self) -> list[tuple[str, int]]:
        """The parts of a key, each with its offset."""
        found = []
        while True:
            start = self._skip(_BLANK)
            found.append((self._name(), start))
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return found
            self._at += 1

    def _name(self) -> str:
        mark = self._text[self._at]
        raw = self._take({'"': _QUOTED, "'": _LITERAL}.get(mark, _BARE))
        if mark == "'":
            return raw[1:-1]
        if mark == '"' and "\\" in raw:
            import tomllib

            return str(tomllib.loads(f"name = {raw}")["name"])
        return raw.strip('"') if mark == '"' else raw

    def _value(self, path: Path) -> None:
        self.keys.setdefault(path, self._at)
        self.values[path] = self._at
        mark, long = self._text[self._at], self._text[self._at : self._at + 3]
        if mark == "[":
            self._array(path)
        elif mark == "{":
            self._inline(path)
        elif long in ('"""', "'''"):
            self._take(_LONG if mark == '"' else _LONG_LITERAL)
        else:
            self._take({'"': _QUOTED, "'": _LITERAL}.get(mark, _SCALAR))

    def _array(self, path: Path) -> None:
        self._at += 1
        number = 0
        while self._text[self._skip(_BLANKS)] != "]":
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._value((*path, number))
            number += 1
        self._at += 1

    def _inline(self, path: Path) -> None:
        self._at += 1
        while self._text[self._skip(_BLANKS)] != "}":
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._pair(path)
        self._at += 1

    def _note(self, path: Path, key: int, value: int) -> None:
        self.keys.setdefault(path, key)
        self.values.setdefault(path, value)

    def _skip(self, what: re.Pattern[str]) -> int:
        found = what.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._at

    def _take(self, what: re.Pattern[str]) -> str:
        found = what.match(self._text, self._at)
        if found is None:
            raise AssertionError(f"no TOML at offset {self._at}")
        self._at = found.end()
        return found[0]
