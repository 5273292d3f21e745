"""The log of the whole host, read where it lies: in RAM. Nothing is kept twice or written to a disk.

Hosted there are only our own lines: another operating system's log is not ours to show.

Who follows has a `Cursor` and asks for what is new: readers cost nothing while there are none, and a slow one
(a syslog server that is away) loses nothing until the rings themselves turn over.
"""

from __future__ import annotations

import asyncio
import calendar
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from thimble.contract.hardware import LogLine
from thimble.host import loglines
from thimble.host.loglines import Wanted
from thimble.sys import clock, log

#: How often followers look for new lines.
PAUSE_S = 0.5
#: Lines given at once to one that follows.
BATCH = 500


class Cursor:
    """How far one reader is. `close` it; `read` blocks and is for a thread, one at a time."""

    def __init__(self, run: Path, kmsg: Path | None) -> None:
        self._run = run
        self._ring: tuple[int, int] | None = None  # (inode, offset) in PID 1's ring
        self._rest = ""
        self._own = log.count() - len(log.ring)
        self._kernel = -1
        self._busy, self._closed = threading.Lock(), False
        if kmsg is not None:
            with suppress(OSError):
                self._kernel = os.open(kmsg, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self) -> None:
        """At once, or by the thread that is just reading: its descriptor must not become another file's."""
        self._closed = True
        if self._busy.acquire(blocking=False):
            self._shut()
            self._busy.release()

    def _shut(self) -> None:
        if self._kernel >= 0:
            os.close(self._kernel)
            self._kernel = -1

    def read(self) -> list[LogLine]:
        """What is new since the last time, oldest first; at first all there is."""
        with self._busy:
            found = [] if self._closed else self._read()
        if self._closed:
            self.close()
        return found

    def _read(self) -> list[LogLine]:
        epoch = clock.now() - clock.since_boot()
        if not (self._run / "log").is_file():
            return self._read_own()
        found = [line for raw in self._read_ring() if (line := loglines.of_ring(raw, epoch))]
        return sorted([*found, *self._read_kernel(epoch)], key=lambda line: line.time)

    def _read_own(self) -> list[LogLine]:
        new = log.count() - self._own
        self._own = log.count()
        lines = list(log.ring)[-new:] if new else []
        return [loglines.of_agent(line, _stamp(line)) for line in lines]

    def _read_ring(self) -> list[str]:
        text = self._rest
        if self._ring is None:  # what turned over before we came
            with suppress(OSError):
                text += (self._run / "log.1").read_text(errors="replace")
        with suppress(OSError), open(self._run / "log", "rb") as file:
            facts = os.fstat(file.fileno())
            if self._ring is not None and self._ring[0] != facts.st_ino:
                text += self._end_of_turned()
                self._ring = None
            at = self._ring[1] if self._ring is not None else 0
            file.seek(at)
            data = file.read()
            self._ring = (facts.st_ino, at + len(data))
            text += data.decode("utf-8", "replace")
        *lines, self._rest = text.split("\n")
        return lines

    def _end_of_turned(self) -> str:
        """The ring became `log.1` since the last time: what was added before."""
        assert self._ring is not None
        with suppress(OSError), open(self._run / "log.1", "rb") as file:
            if os.fstat(file.fileno()).st_ino == self._ring[0]:
                file.seek(self._ring[1])
                return file.read().decode("utf-8", "replace")
        return ""

    def _read_kernel(self, epoch: float) -> list[LogLine]:
        found: list[LogLine] = []
        while self._kernel >= 0:
            try:
                record = os.read(self._kernel, 8192)
            except BlockingIOError:
                break
            except BrokenPipeError:  # records were overwritten before we read them
                continue
            except OSError:
                self._shut()
                break
            if not record:
                break
            if (line := loglines.of_kernel(record, epoch)) is not None:
                found.append(line)
        return found


class Logbook:
    """`kernel`: its ring, None when that is not ours to show."""

    def __init__(self, run: Path, *, kernel: Path | None) -> None:
        self._run, self._kernel = run, kernel

    def cursor(self) -> Cursor:
        return Cursor(self._run, self._kernel)

    def lines(self, wanted: Wanted) -> list[LogLine]:
        """The last ones that are wanted."""
        cursor = self.cursor()
        try:
            found = [line for line in cursor.read() if wanted.has(line)]
        finally:
            cursor.close()
        return found[-wanted.lines :] if wanted.lines else []

    async def follow(self, wanted: Wanted) -> AsyncIterator[list[LogLine]]:
        """Batches for ever: the last `wanted.lines`, then what comes."""
        cursor = self.cursor()
        try:
            found = [line for line in await asyncio.to_thread(cursor.read) if wanted.has(line)]
            found = found[-wanted.lines :] if wanted.lines else []
            while True:
                for at in range(0, len(found), BATCH):
                    yield found[at : at + BATCH]
                await asyncio.sleep(PAUSE_S)
                found = [line for line in await asyncio.to_thread(cursor.read) if wanted.has(line)]
        finally:
            cursor.close()


def _stamp(line: str) -> float:
    try:
        return float(calendar.timegm(time.strptime(line[:20], "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return 0.0


def text(run: Path) -> tuple[str, ...]:
    """PID 1's ring in RAM, which holds our lines too; hosted only our own. Blocks."""
    lines: list[str] = []
    for name in ("log.1", "log"):
        path = run / name
        if path.is_file():
            lines += path.read_text(errors="replace").splitlines()
    return tuple(lines) if lines else tuple(log.ring)
