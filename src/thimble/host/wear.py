"""What was written to the disk the host was booted from: a flash dies of writes. Kept in RAM only.

Counted by the kernel (Documentation/block/stat.rst: the seventh number, in sectors of 512 bytes); looked at
once a minute, so that the last hour is known to a minute.
"""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

from thimble.contract.host import MediumWrites
from thimble.host.pid1 import Init
from thimble.sys import clock

_EVERY = 60.0
_HOUR = 3600.0
_SECTOR = 512


class Writes:
    """`sys` is where the kernel lists block devices."""

    def __init__(self, init: Init, sys: Path = Path("/sys/class/block")) -> None:
        self._init, self._sys = init, sys
        self._samples: deque[tuple[float, int]] = deque(maxlen=int(_HOUR / _EVERY) + 1)

    async def run(self) -> None:
        """Takes samples for ever."""
        while True:
            self.sample(clock.since_boot())
            await asyncio.sleep(_EVERY)

    def sample(self, now: float) -> None:
        written = self._written()
        if written is not None:
            self._samples.append((now, written))

    def view(self, now: float) -> MediumWrites | None:
        """None when the host runs from no disk of its own."""
        written = self._written()
        if written is None:
            return None
        return MediumWrites(
            disk=f"/dev/{self._disk()}",
            since_boot_bytes=written,
            last_hour_bytes=written - before(self._samples, now - _HOUR),
        )

    def _written(self) -> int | None:
        try:
            fields = (self._sys / self._disk() / "stat").read_text().split()
        except OSError:
            return None
        return int(fields[6]) * _SECTOR

    def _disk(self) -> str:
        """The medium's, or the one that the state is on; "" without either."""
        boot = self._init.boot
        if boot is not None and boot.medium is not None:
            return Path(boot.medium.disk).name
        kind, device = self._init.state
        return whole(self._sys, Path(device).name) if kind == "partition" else ""


def whole(sys: Path, name: str) -> str:
    """The disk a block device lies on: of a mirror the first one's."""
    slaves = sys / name / "slaves"
    if slaves.is_dir() and (first := next(iter(sorted(slaves.iterdir())), None)) is not None:
        return whole(sys, first.name)
    if (sys / name / "partition").exists():
        return (sys / name).resolve().parent.name
    return name


def before(samples: deque[tuple[float, int]], moment: float) -> int:
    """What had been written by then; nothing, as long as we do not look back that far."""
    return max((written for at, written in samples if at <= moment), default=0)
