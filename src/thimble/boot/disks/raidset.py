"""Assembles a mirror (RAID 1) by the kernel's sysfs files (Documentation/admin-guide/md.rst), without mdadm.

Runs in a job child: a write here waits for disks.
"""

from __future__ import annotations

import os

from . import blocks, raid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..devices.modalias import DriverTable
    from .blocks import BlockDevice

ARRAY = "md_state"
_NEW = "/sys/module/md_mod/parameters/new_array"


def assemble(table: DriverTable, members: list[BlockDevice]) -> tuple[BlockDevice | None, list[str]]:
    """Starts the set with its usable members; returns what is on it, and warnings. Raises OSError."""
    from ..devices.drivers import load

    load(table, ("raid1",))
    plan = raid.plan(members)
    warnings = list(plan.warnings)
    _write(_NEW, ARRAY)
    here = f"/sys/block/{ARRAY}/md"
    _write(f"{here}/metadata_version", "1.2")
    for device in plan.use:
        try:
            _write(f"{here}/new_dev", _number(device))
        except OSError as error:
            warnings.append(f"cannot add {device} to the mirror: {error.strerror}")
    _write(f"{here}/array_state", "active")
    for device in plan.use:
        if not os.path.exists(f"{here}/dev-{os.path.basename(device)}"):
            plan.join.append(device)  # the kernel found it too far behind
            warnings.append(f"the mirror {device} is out of sync and is being resynchronised")
    for device in plan.join:
        try:
            _write(f"{here}/new_dev", _number(device))
        except OSError as error:
            warnings.append(f"cannot resynchronise the mirror {device}: {error.strerror}")
    return blocks.look(ARRAY), warnings


def _number(device: str) -> str:
    with open(f"/sys/class/block/{os.path.basename(device)}/dev") as file:
        return file.read().strip()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
