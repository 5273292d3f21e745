"""Control groups, version 2 (Documentation/admin-guide/cgroup-v2.rst). One group per VM below our own root.

    <cgroup2 mount>/thimble[-instance]/vm-7k3m9q2d

Works also where the controllers are bound to version 1 (hybrid hosts): a group then only holds
processes together.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from thimble.sys import files


def mount_point() -> Path | None:
    """Where cgroup2 is mounted; None when it is nowhere."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def create(group: Path) -> None:
    """Make `group` and hand it the controllers that its parent has. Raises `Problem` FAILED."""
    try:
        group.parent.mkdir(parents=True, exist_ok=True)
        for above in (group.parent.parent, group.parent):
            offered = (above / "cgroup.controllers").read_text().split()
            wanted = " ".join(f"+{name}" for name in offered if name in ("cpu", "memory", "io", "pids"))
            if wanted:
                with suppress(OSError):  # busy with own processes, as a container's root is
                    (above / "cgroup.subtree_control").write_text(wanted)
        group.mkdir(exist_ok=True)
    except OSError as error:
        raise files.problem(error, f"cannot make the control group {group}") from error


def enter(group: Path, pid: int) -> None:
    """Move the whole process `pid` into `group`."""
    try:
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        raise files.problem(error, f"cannot put process {pid} into {group}") from error


def members(group: Path) -> list[int]:
    """Pids inside; empty when the group does not exist."""
    try:
        return [int(word) for word in (group / "cgroup.procs").read_text().split()]
    except FileNotFoundError:
        return []


def delete(group: Path) -> None:
    """Remove an empty group; a missing one is fine. Raises `Problem` when something still runs in it."""
    try:
        group.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise files.problem(error, f"cannot remove the control group {group}") from error
