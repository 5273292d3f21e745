"""The one virtual server all measured systems are powered on in: same processor, memory, QEMU and bus.

A `Machine` is a running QEMU whose serial line we read; a `Moment` is when something appeared on it, in
seconds of wall time and of processor time of that QEMU since power-on. KVM is used only if the CPU has it.
QEMU's own crashes (rare, known with TCG) are told apart from a system that stays silent, and are tried again.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from thimble.core.problem import Code, Problem, Reason
from thimble.host import hardware
from thimble.image.progress import Report
from thimble.image.toolbox import Toolbox

VCPUS = 2
MEMORY_MIB = 4096
NESTING = {"tcg": "EPYC,+svm,+npt", "kvm": "host"}
TICKS = os.sysconf("SC_CLK_TCK")
ATTEMPTS = 3
T = TypeVar("T")


class Crashed(Exception):
    """The outer QEMU itself died: nothing the measured system did."""


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """What to power on."""

    name: str
    kernel: Path
    initrd: Path
    cmdline: str
    disks: tuple[tuple[Path, str], ...] = ()  # (file, format); writes go nowhere
    second_serial: bool = False


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """When a line appeared, since power-on."""

    line: str
    wall_s: float
    cpu_s: float


def accelerator() -> str:
    """`kvm` or `tcg`, by the product's own rule."""
    return hardware.accel().name


def arguments(boot: Boot, accel: str, second: int | None) -> list[str]:
    """The command line of the virtual server."""
    words = [
        "qemu-system-x86_64",
        "-nodefaults",
        "-no-user-config",
        *("-display", "none"),
        *("-machine", "q35"),
        *("-accel", "tcg,thread=multi" if accel == "tcg" else accel),
        *("-cpu", NESTING[accel]),
        *("-smp", str(VCPUS)),
        *("-m", str(MEMORY_MIB)),
        *("-kernel", str(boot.kernel)),
        *("-initrd", str(boot.initrd)),
        *("-append", boot.cmdline),
        *("-netdev", "user,id=net"),
        *("-device", "virtio-net-pci,netdev=net"),
        *("-chardev", "stdio,id=line,signal=off"),
        *("-serial", "chardev:line"),
    ]
    if second is not None:
        words += ["-chardev", f"socket,id=second,fd={second}", "-serial", "chardev:second"]
    for number, (path, form) in enumerate(boot.disks):
        words += ["-drive", f"file={path},format={form},if=none,id=disk{number},snapshot=on"]
        words += ["-device", f"virtio-blk-pci,drive=disk{number}"]
    return words


class Machine:
    """A running virtual server; a context manager that ends it."""

    def __init__(self, boot: Boot, box: Toolbox) -> None:
        self.second: socket.socket | None = None
        theirs: socket.socket | None = None
        if boot.second_serial:
            self.second, theirs = socket.socketpair()
        argv = box.argv(*arguments(boot, accelerator(), theirs.fileno() if theirs else None))
        self._name = boot.name
        self._seen: list[str] = []
        self._rest = b""
        self._began = time.monotonic()
        self._qemu = subprocess.Popen(
            argv,
            env={**os.environ, **box.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(theirs.fileno(),) if theirs else (),
            start_new_session=True,
        )
        if theirs:
            theirs.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._qemu.kill()
        self._qemu.wait()
        for pipe in (self._qemu.stdout, self._qemu.stderr, self.second):
            if pipe:
                pipe.close()

    def cpu_s(self) -> float:
        """User and system seconds QEMU has used since power-on."""
        fields = Path(f"/proc/{self._qemu.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def wait(self, *texts: str, timeout: float) -> Moment:
        """Wait for a line holding one of `texts`."""
        for line in self.lines(timeout=timeout):
            if any(text in line for text in texts):
                return Moment(line=line, wall_s=time.monotonic() - self._began, cpu_s=self.cpu_s())
        raise AssertionError("lines() ends only by raising")

    def lines(self, *, timeout: float) -> Iterator[str]:
        """The lines of the serial port as they come; a problem when `timeout` seconds have gone."""
        deadline = time.monotonic() + timeout
        assert self._qemu.stdout
        while True:
            while b"\n" in self._rest:
                raw, self._rest = self._rest.split(b"\n", 1)
                line = raw.decode(errors="replace").strip("\r")
                self._seen.append(line)
                yield line
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._qemu.stdout], [], [], left)[0]:
                raise Problem(
                    Code.TIMEOUT,
                    f"{self._name}: not heard within {timeout:.0f} s what was waited for",
                    reasons=tuple(Reason(message=line, code=Code.TIMEOUT) for line in self._tail()),
                )
            data = os.read(self._qemu.stdout.fileno(), 65536)
            if not data:
                self._ended()
            self._rest += data

    def _tail(self) -> list[str]:
        return [*self._seen[-10:], self._rest.decode(errors="replace")]

    def _ended(self) -> None:
        code = self._qemu.wait()
        assert self._qemu.stderr
        said = self._qemu.stderr.read().decode(errors="replace").strip().splitlines()
        if code in (-signal.SIGABRT, -signal.SIGSEGV):
            raise Crashed(f"QEMU itself crashed under {self._name}: {said[-1] if said else code}")
        raise Problem(
            Code.FAILED,
            f"{self._name}: the virtual server ended (exit code {code})",
            reasons=tuple(Reason(message=line, code=Code.FAILED) for line in [*said[-5:], *self._tail()]),
        )


@contextmanager
def powered_on(boot: Boot, box: Toolbox) -> Iterator[Machine]:
    """A machine for the length of a block."""
    with Machine(boot, box) as machine:
        yield machine


def tried(measure: Callable[[], T], report: Report) -> T:
    """Measure; a crash of the outer QEMU is said and tried again, at most twice."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return measure()
        except Crashed as crash:
            if attempt == ATTEMPTS:
                raise Problem(
                    Code.FAILED, str(crash), hint="the machine's QEMU crashed three times in a row"
                ) from crash
            report("bench", None, f"WARNING: {crash}; once more")
    raise AssertionError("unreachable")


def alternate(rounds: int, sides: Sequence[Callable[[], None]]) -> None:
    """A B A B …: every round measures each side once, so that a drift of the machine hits both alike."""
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            side()
