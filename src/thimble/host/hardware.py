"""What the machine offers. `choose_accel` decides purely; the rest reads the kernel's own files.

KVM is used only when `/dev/kvm` opens *and* the CPU shows vmx or svm: paravirtual clouds have a `/dev/kvm` on
which ordinary kernels hang.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import msgspec


class Accel(msgspec.Struct, frozen=True, kw_only=True):
    """How guests run: `kvm`, or `tcg` with the reason in `why`."""

    name: str
    why: str = ""


def choose_accel(cpuinfo: str, device_error: str) -> Accel:
    """Decide from the text of `/proc/cpuinfo` and what opening `/dev/kvm` said ("" when it opened)."""
    flags = next(
        (line.split(":", 1)[1].split() for line in cpuinfo.splitlines() if line.startswith("flags")), []
    )
    if "vmx" not in flags and "svm" not in flags:
        return Accel(
            name="tcg", why="the CPU shows neither vmx nor svm: switch virtualization on in the firmware"
        )
    if device_error:
        return Accel(name="tcg", why=f"/dev/kvm does not open: {device_error}")
    return Accel(name="kvm")


def accel() -> Accel:
    """What this machine can do now."""
    error = ""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as caught:
        error = os.strerror(caught.errno or 0)
    return choose_accel(cpuinfo(), error)


def cpuinfo() -> str:
    """What the kernel says of the CPUs (proc(5))."""
    return Path("/proc/cpuinfo").read_text()


@cache
def cpu_model() -> str:
    """The first CPU's name."""
    for line in cpuinfo().splitlines():
        if line.startswith("model name"):
            return " ".join(line.split(":", 1)[1].split())
    return "unknown"


def memory() -> tuple[int, int]:
    """(total, available) bytes of RAM, as the kernel counts (proc(5), meminfo)."""
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return _kib(facts["MemTotal"]), _kib(facts["MemAvailable"])


def _kib(text: str) -> int:
    """Bytes of `  8048572 kB`."""
    return int(text.split()[0]) * 1024


def addresses() -> tuple[str, ...]:
    """Global addresses a client could reach us by, IPv4 first; none of our own guest switches'."""
    import socket

    found = []
    for family, probe in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            try:  # no packet is sent: the kernel only picks the source address of the default route
                asking.connect((probe, 9))
                found.append(str(asking.getsockname()[0]))
            except OSError:
                continue
    return tuple(found)
