"""Randomness carried over a reboot by a seed on the state partition.

The seed is used once: it is removed, and its removal is on disk, before the kernel gets it. It is
credited only on real hardware: a virtual disk may be a copy, and its seed known to another machine.
"""

from __future__ import annotations

import os

from . import linux

SEED = "boot/seed"
SIZE = 512
_CREDIT_BITS = 256


def load(state: str, *, may_credit: bool) -> str:
    """Feeds the seed to the kernel; returns a line for the log."""
    path = f"{state}/{SEED}"
    try:
        with open(path, "rb") as file:
            seed = file.read(SIZE)
        os.unlink(path)
    except OSError:
        return "no seed"
    removed = _sync_directory(os.path.dirname(path))
    bits = _CREDIT_BITS if may_credit and removed and len(seed) == SIZE else 0
    linux.add_entropy(seed, bits)
    return f"seed of {len(seed)} bytes, credited with {bits} bits"


def save(state: str) -> None:
    """Writes a fresh seed."""
    path = f"{state}/{SEED}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, os.urandom(SIZE))
        os.fsync(fd)
    finally:
        os.close(fd)


def is_virtual(cpuinfo: str) -> bool:
    """Whether this machine runs under a hypervisor, going by /proc/cpuinfo."""
    line = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return "hypervisor" in line.split()


def _sync_directory(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.fsync(fd)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
