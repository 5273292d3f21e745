"""QEMU as a process: what it is given, how it is started, found again, ended.

QEMU opens no path of ours (`render`): all it has are the descriptors it is given.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem
from thimble.sys import cgroup, files
from thimble.sys import process as linux
from thimble.vm.qemu.descriptors import LaunchFds
from thimble.vm.qemu.rundir import RunDir, qemu_words
from thimble.vm.record.spec import Definition


def spawn(rundir: RunDir, argv: list[str], fds: LaunchFds, *, uid: int | None) -> linux.Identity:
    """Start QEMU; `remember` who it is next."""
    return linux.spawn(
        argv,
        output=rundir.qemu_log,
        uid=uid,
        gid=uid,
        fds=tuple(fds.fds.values()),
        env={"LC_ALL": "C.UTF-8"},
    )


def remember(rundir: RunDir, who: linux.Identity, group: Path | None) -> None:
    """Write down who it is, put it into its control group. Raises `Problem`; it runs on then."""
    files.write_atomic(rundir.process, msgspec.json.encode(who), durable=False)
    if group is not None:
        with suppress(Problem):  # a QEMU that died at once is told by its connection
            cgroup.create(group)
            cgroup.enter(group, who.pid)


def find(record: Definition, group: Path | None) -> linux.Identity | None:
    """A QEMU of this VM that nobody wrote down: the agent died in the midst of starting it."""
    pids = cgroup.members(group) if group is not None else []
    for pid in pids or [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"-uuid" in words and record.uuid.encode() in words:
                return linux.identify(pid)
    return None


def start_problem(log: bytes) -> Problem:
    """Why QEMU would not start, in its own words."""
    words = qemu_words(log) or "it ended without a word"
    code = (
        Code.NO_MEMORY
        if "annot allocate memory" in words or "cannot set up guest memory" in words
        else Code.FAILED
    )
    return Problem(code, f"QEMU did not start: {words}")
