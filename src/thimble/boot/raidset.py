"""Starts a mirror by the kernel's own sysfs files (Documentation/admin-guide/md.rst); no program is needed.

Runs in a job child: a write here waits for disks.
"""

from __future__ import annotations

import os

from . import blocks, raid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .blocks import Seen
    from .modalias import Table

ARRAY = "md_state"
_NEW = "/sys/module/md_mod/parameters/new_array"


def assemble(table: Table, members: list[Seen]) -> tuple[Seen | None, list[str]]:
    """Starts the set with whoever may be in it; what is on it, and warnings. Raises OSError."""
    from .drivers import load

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
            warnings.append(f"{device} cannot be part of the mirror: {error.strerror}")
    _write(f"{here}/array_state", "active")
    for device in plan.use:
        if not os.path.exists(f"{here}/dev-{os.path.basename(device)}"):
            plan.join.append(device)  # the kernel found it too far behind
            warnings.append(f"the mirror {device} was out of step and is brought up to date")
    for device in plan.join:
        try:
            _write(f"{here}/new_dev", _number(device))
        except OSError as error:
            warnings.append(f"the mirror {device} cannot be brought up to date: {error.strerror}")
    return blocks.look(ARRAY), warnings


def _number(device: str) -> str:
    with open(f"/sys/class/block/{os.path.basename(device)}/dev") as file:
        return file.read().strip()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
