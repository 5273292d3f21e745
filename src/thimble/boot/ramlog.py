"""The log in RAM, `/run/thimble/log`, of PID 1 and all it supervises.

At `LIMIT` bytes it becomes `log.1` and a new one begins: between one and two times `LIMIT` is kept.
"""

from __future__ import annotations

import os
import time

LIMIT = 512 * 1024


class RamLog:
    """Appends lines `SECONDS SOURCE: text`, seconds since the kernel started."""

    def __init__(self, path: str, limit: int = LIMIT) -> None:
        self.path, self._limit = path, limit
        self._fd, self._size = -1, 0

    def write(self, source: str, text: str) -> None:
        """One line; a full or missing file system loses it silently."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        data = f"{now:.3f} {source}: {text}\n".encode("utf-8", "replace")
        try:
            if self._fd < 0 or self._size + len(data) > self._limit:
                self._turn()
            self._size += os.write(self._fd, data)
        except OSError:
            pass

    def _turn(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            os.replace(self.path, f"{self.path}.1")
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size


class LineSplitter:
    """Cuts a stream of bytes into lines of at most `longest` bytes."""

    def __init__(self, longest: int = 4096) -> None:
        self._rest, self._longest = b"", longest

    def feed(self, data: bytes) -> list[str]:
        """The lines completed by these bytes; an empty `data` (end of stream) gives the rest."""
        *lines, rest = (self._rest + data).split(b"\n")
        if rest and (not data or len(rest) > self._longest):
            lines, rest = [*lines, rest], b""
        self._rest = rest
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines if line]
