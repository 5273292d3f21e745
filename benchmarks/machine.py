"""The one virtual server all measured systems are powered on in: the lab's, the same but for the disk.

A crash of the outer QEMU (known under TCG) is told apart from a system that stays silent, and is tried again.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from thimble.image import toolbox
from thimble.image.progress import Report
from thimble.lab import outer, tools
from thimble.lab.server import LabServer
from thimble.lab.spec import STATE_LABEL, LabDisk, LabNic, ServerSpec

VCPUS = 2
MEMORY_MIB = 4096
T = TypeVar("T")


class System(msgspec.Struct, frozen=True, kw_only=True):
    """What is powered on, and what it says on the serial line when it is ready for virtual machines."""

    name: str
    kernel: Path
    initrd: Path
    cmdline: str
    ready: bytes
    disk: Path | None = None  # raw; writes to it are thrown away
    state_disk: bool = False  # an empty state partition besides
    forwards: tuple[int, ...] = ()


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds since power-on: on the clock, and of processor time of the whole virtual server."""

    wall_s: float
    cpu_s: float


def now(server: LabServer) -> Moment:
    return Moment(wall_s=server.seconds_on(), cpu_s=server.cpu_seconds())


def spec(system: System, disk: Path | None) -> ServerSpec:
    """The server's specification. Pure."""
    state = (LabDisk(size_bytes=4 << 30, label=STATE_LABEL),) if system.state_disk else ()
    return ServerSpec(
        name=f"bench-{system.name}",
        cpus=VCPUS,
        memory_mib=MEMORY_MIB,
        kernel=str(system.kernel),
        initrd=str(system.initrd),
        append=system.cmdline,
        disks=((LabDisk(file=str(disk), format="qcow2"),) if disk else ()) + state,
        nics=(LabNic(forwards=system.forwards),),
    )


@contextmanager
def powered_on(system: System, *, timeout: float) -> Iterator[tuple[LabServer, Moment]]:
    """The system up and ready, and when it was; gone at the end of the block, with its disk's changes."""
    with tempfile.TemporaryDirectory(prefix="thimble-bench.") as scratch:
        disk = _overlay(system.disk, Path(scratch)) if system.disk else None
        server = LabServer.up(spec(system, disk))
        try:
            server.wait_for(system.ready, timeout=timeout)
            yield server, now(server)
        finally:
            server.down(force=True)


def _overlay(base: Path, scratch: Path) -> Path:
    disk = scratch / "disk.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base), str(disk)]
    subprocess.run(toolbox.ensure().argv(*words), check=True, stdin=subprocess.DEVNULL)
    return disk


def tried(measure: Callable[[], T], report: Report) -> T:
    """Measure; a crash of the outer QEMU is said and the measurement repeated, at most twice."""
    return outer.with_retries(lambda _: measure(), say=lambda line: report("bench", None, f"WARNING: {line}"))


def alternate(rounds: int, sides: Sequence[Callable[[], None]]) -> None:
    """A B, B A, A B …: each round measures each side once, so that drift of the machine hits both alike."""
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            side()


def accelerator() -> str:
    """`kvm` or `tcg`, as the lab chooses."""
    return tools.accel().name
