"""Whether a VM's memory can be promised: a ledger of what was promised and not touched yet. Pure.

QEMU takes a guest's memory page by page as the guest touches it, so what the kernel calls available is also
what running VMs have yet to take. A start is admitted when it fits beside all that.

    free to promise = available − Σ (promised − touched) of each VM that runs or was told to start
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from thimble.core.problem import Code, Reason
from thimble.core.units import MIB, show_size

#: Bytes that QEMU itself needs beside its guest's memory, about.
OVERHEAD = 64 * MIB


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What one VM was promised, and what of it its QEMU has touched; bytes."""

    vm: str
    promised: int
    touched: int = 0


def need(memory_mib: int) -> int:
    """Bytes a VM takes at most."""
    return memory_mib * MIB + OVERHEAD


def free(available: int, promises: Iterable[Promise]) -> int:
    """Bytes that can still be promised; not below 0."""
    return max(0, available - sum(max(0, one.promised - one.touched) for one in promises))


def reasons(memory_mib: int, available: int, promises: tuple[Promise, ...]) -> list[Reason]:
    """Why a VM of that size cannot start beside those."""
    left = free(available, promises)
    if need(memory_mib) <= left:
        return []
    waiting = available - left
    others = f", {show_size(waiting)} more are promised to VMs that run or start" if waiting else ""
    message = f"it needs {memory_mib} MiB of memory, the host has {show_size(left)} free{others}"
    return [Reason(message=message, code=Code.NO_MEMORY, path="$.memory_mib")]
