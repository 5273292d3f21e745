"""From the raw lines of the two rings to `LogLine`s, and which of them somebody wants. Pure.

    /run/thimble/log   SECONDS SOURCE: text        PID 1, agent, daemons; seconds since kernel start
    /dev/kmsg          PRIORITY,SEQ,MICROSECONDS,…;text   the kernel (ABI/testing/dev-kmsg)

Lines of PID 1's ring have no level; it follows from how they begin.
"""

from __future__ import annotations

import re

import msgspec

from thimble.contract.hardware import LogLevel, LogLine
from thimble.core.problem import Code, Problem

LEVELS = tuple(LogLevel)
LINES, LINES_MAX = 200, 10_000
_RING = re.compile(r"(\d+\.\d+) ([\w.-]+): (.*)", re.DOTALL)
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")
_WARNING = re.compile(r"warning\b|.{0,40}\bwarning: ", re.IGNORECASE)
_ERROR = re.compile(
    r"traceback \(most recent|(\w+\.)*\w+(Error|Problem)(:|$)|fatal\b|.{0,60}\bfailed\b|error\b",
    re.IGNORECASE,
)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What of the log. `since`: seconds of the epoch; `sources` empty: all."""

    lines: int = LINES
    level: LogLevel = LogLevel.DEBUG
    sources: frozenset[str] = frozenset()
    since: float = 0.0

    def has(self, line: LogLine) -> bool:
        return (
            LEVELS.index(line.level) <= LEVELS.index(self.level)
            and (not self.sources or line.source in self.sources)
            and line.time >= self.since
        )


def wanted(query: dict[str, str], *, lines: int = LINES) -> Wanted:
    """From a request's query. Raises `Problem` INVALID."""
    try:
        count = int(query.get("lines", lines))
    except ValueError:
        count = -1
    if not 0 <= count <= LINES_MAX:
        raise Problem(Code.INVALID, f"lines must be a number from 0 to {LINES_MAX}", where="?lines")
    try:
        level = LogLevel(query.get("level", LogLevel.DEBUG))
    except ValueError:
        known = ", ".join(LEVELS)
        raise Problem(Code.INVALID, f"level is one of {known}", where="?level") from None
    try:
        since = float(query.get("since", "0"))
    except ValueError:
        since = float("nan")
    if not 0 <= since < 1e12:
        raise Problem(Code.INVALID, "since is a time in seconds since the epoch", where="?since")
    sources = frozenset(filter(None, query.get("source", "").split(",")))
    return Wanted(lines=count, level=level, sources=sources, since=since)


def of_ring(line: str, epoch: float) -> LogLine | None:
    """A line of PID 1's ring. `epoch`: when the kernel started. Stamps of the programs go."""
    found = _RING.fullmatch(line)
    if found is None:
        return None
    text = _STAMP.sub("", found[3], count=1)
    return LogLine(
        time=round(epoch + float(found[1]), 3), level=level_of(text), source=found[2], text=_plain(text)
    )


def of_agent(line: str, time: float) -> LogLine:
    """One of our own, when there is no PID 1; `time`: what its stamp says."""
    text = _STAMP.sub("", line, count=1)
    return LogLine(time=time, level=level_of(text), source="agent", text=_plain(text))


def of_kernel(record: bytes, epoch: float) -> LogLine | None:
    """A record of /dev/kmsg; None for what programs wrote there: PID 1's ring has that."""
    head, _, text = record.decode("utf-8", "replace").partition(";")
    words = head.split(",")
    if len(words) < 3 or not all(word.isdigit() for word in words[:3]):
        return None
    priority = int(words[0])
    if priority >> 3:
        return None
    first = text.split("\n", 1)[0]  # what follows are facts about the device
    return LogLine(
        time=round(epoch + int(words[2]) / 1e6, 3),
        level=LEVELS[priority & 7],
        source="kernel",
        text=_plain(first),
    )


def level_of(text: str) -> LogLevel:
    if _WARNING.match(text):
        return LogLevel.WARNING
    return LogLevel.ERROR if _ERROR.match(text) else LogLevel.INFO


def _plain(text: str) -> str:
    return "".join(mark if mark.isprintable() or mark == "\t" else " " for mark in text)
