"""The tty: urwid's raw screen for keys, colours and small redraws, and the terminal's size.

urwid's package imports all its widgets; of it only the terminal is used, so the package itself is left
out: that is nine tenths of its memory and start. Characters are one column wide here (draw.py), so
`wcwidth`, which would be asked for each, answers that.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import sys
import termios
import time
import tty
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TextIO

from thimble.dcui.draw import Row
from thimble.dcui.view import Frame

#: style → (letters, ground), in the sixteen colours every terminal has
PALETTE = {
    "body": ("light gray", "black"),
    "dim": ("dark cyan", "black"),
    "title": ("white", "black"),
    "head": ("light gray", "black"),
    "bar": ("yellow", "black"),
    "bad": ("light red", "black"),
    "gold": ("black", "brown"),
    "gold title": ("black", "brown"),
    "alarm": ("white", "dark red"),
    "toast": ("white", "dark blue"),
    "keys": ("black", "light gray"),
    "key": ("dark red", "light gray"),
    "chosen": ("black", "brown"),
    "field": ("white", "dark blue"),
}
#: The Linux console's own colours can be chosen: a warm grey for black, a true yellow for brown.
VT_COLOURS = "\x1b]P0262626\x1b]P3f2b824\x1b]P8666666"
ASK_SIZE = "\x1b7\x1b[r\x1b[999;999H\x1b[6n\x1b8"
_REPORT = re.compile(rb"\x1b\[(\d{1,4});(\d{1,4})R")
SIZE_WAIT_S = 1.0
ESCAPE_WAIT_S = 0.25
LEAST, MOST = (20, 5), (300, 100)


def _screen(source: TextIO, target: TextIO) -> Any:
    if "urwid" not in sys.modules:
        spec = find_spec("urwid")
        package = ModuleType("urwid")
        package.__path__ = list(spec.submodule_search_locations or ()) if spec else []
        sys.modules["urwid"] = package
        narrow = ModuleType("wcwidth")
        narrow.wcwidth = lambda _letter: 1  # type: ignore[attr-defined]
        sys.modules.setdefault("wcwidth", narrow)
    from urwid.display.raw import Screen

    return Screen(source, target)


class Canvas:
    """A frame as urwid draws it."""

    def __init__(self, frame: Frame, encoding: str) -> None:
        self._rows = [_encoded(row, encoding) for row in frame.rows]
        self.cursor = frame.cursor

    def rows(self) -> int:
        return len(self._rows)

    def content(self) -> list[list[tuple[str, None, bytes]]]:
        return self._rows


def _encoded(row: Row, encoding: str) -> list[tuple[str, None, bytes]]:
    return [(style, None, text.encode(encoding, "replace")) for style, text in row]


class Terminal:
    """stdin and stdout as a screen. `open` before, `close` after; both may be called again."""

    def __init__(self, *, utf8: bool) -> None:
        self._encoding = "utf-8" if utf8 else "ascii"
        self._out = open(1, "w", encoding=self._encoding, errors="replace", closefd=False)  # noqa: SIM115
        self._in = open(0, closefd=False)  # noqa: SIM115
        self._is_vt = os.environ.get("TERM") == "linux"
        self._codes: list[int] = []
        self._since = 0.0
        self._screen: Any = _screen(self._in, self._out)
        import urwid.util

        urwid.util.set_encoding("utf-8" if utf8 else "ascii")
        self._screen.set_terminal_properties(colors=16)
        for style, (letters, ground) in PALETTE.items():
            self._screen.register_palette_entry(style, letters, ground)
        self.size = (80, 24)
        self._told = False

    def open(self) -> None:
        """Raw keys, the alternate screen; learns the size."""
        before = termios.tcgetattr(0)
        self._screen.start()
        tty.setraw(0)
        mode = termios.tcgetattr(0)
        mode[0] |= before[0] & termios.IXON  # a slow terminal may say stop
        termios.tcsetattr(0, termios.TCSANOW, mode)
        if self._is_vt:
            self._write(VT_COLOURS)
        self.measure()

    def close(self) -> None:
        """As it was before."""
        if self._is_vt:
            self._write("\x1b]R")
        self._screen.stop()

    def measure(self) -> None:
        """The size the kernel knows; a serial line's is asked of the terminal, and 80×24 if it is silent."""
        columns, rows = _kernel_size()
        if self._told or not columns:
            columns, rows = self._asked() or (columns or 80, rows or 24)
            self._told = True
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.size = (max(1, min(columns, MOST[0])), max(1, min(rows, MOST[1])))
        self._screen.clear()

    def _asked(self) -> tuple[int, int] | None:
        self._write(ASK_SIZE)
        seen, deadline = b"", time.monotonic() + SIZE_WAIT_S
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([0], [], [], left)[0]:
                break
            seen += os.read(0, 1024)
            found = _REPORT.search(seen)
            if found:
                self._codes += list(seen[: found.start()] + seen[found.end() :])
                return max(LEAST[0], int(found[2])), max(LEAST[1], int(found[1]))
        self._codes += list(seen)
        return None

    def draw(self, frame: Frame) -> None:
        """Only the rows that changed are sent."""
        self._screen.draw_screen(self.size, Canvas(frame, self._encoding))

    def fileno(self) -> int:
        return 0

    @property
    def resized(self) -> int:
        """Readable when the window's size changed."""
        return int(self._screen._resize_pipe_rd.fileno())

    @property
    def patience(self) -> float | None:
        """Seconds until a lone Esc is a key by itself; None when nothing is half typed."""
        return max(0.0, self._since + ESCAPE_WAIT_S - time.monotonic()) if self._codes else None

    def keys(self, *, ready: bool) -> list[str]:
        """What was typed, as urwid names keys. Raises EOFError when the terminal is gone."""
        from urwid.display import escape

        if ready:
            data = os.read(0, 4096)
            if not data:
                raise EOFError
            self._codes += list(data)
            self._since = time.monotonic()
        found: list[str] = []
        codes = self._codes
        while codes:
            try:
                run, codes = escape.process_keyqueue(codes, self.patience != 0.0)
            except escape.MoreInputRequired:
                break
            found += [key for key in run if isinstance(key, str)]
        self._codes = codes
        return [_plain(key) for key in found]

    def drained(self) -> None:
        """The news of a new size was taken."""
        self._screen._resize_pipe_rd.recv(128)
        self._screen._resized = False
        self.measure()

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _plain(key: str) -> str:
    """Names that mean the same, as one."""
    return {
        "ctrl m": "enter",
        "ctrl j": "enter",
        "ctrl h": "backspace",
        "ctrl i": "tab",
        "ctrl c": "esc",
    }.get(key, key)


def _kernel_size() -> tuple[int, int]:
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return 0, 0
    return columns, rows
