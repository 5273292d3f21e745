"""Control groups, where this machine has them and lets us."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from thimble.sys import cgroup, clock, log, process

MOUNT = cgroup.mount_point()


@pytest.mark.skipif(MOUNT is None or not os.access(MOUNT, os.W_OK), reason="no control groups to write to")
def test_a_group_holds_and_forgets_its_processes(tmp_path: Path) -> None:
    assert MOUNT is not None
    group = MOUNT / f"thimble-test-{os.getpid()}" / "vm-1"
    cgroup.create(group)
    try:
        cgroup.create(group)
        who = process.spawn(["sleep", "60"], output=tmp_path / "log")
        cgroup.enter(group, who.pid)
        assert cgroup.members(group) == [who.pid]
        process.send(who, signal.SIGKILL)
        asyncio.run(asyncio.wait_for(process.exited(who), 10))
        assert cgroup.members(group) == []
    finally:
        cgroup.delete(group)
        cgroup.delete(group.parent)
    assert not group.parent.exists()
    cgroup.delete(group)
    assert cgroup.members(group) == []


def test_clocks_and_entropy() -> None:
    assert clock.since_boot() <= clock.since_boot()
    assert clock.now() > 1_700_000_000
    assert len({clock.entropy(8) for _ in range(50)}) == 50


def test_the_log_keeps_its_last_lines() -> None:
    log.say("a line of the test")
    assert log.ring[-1].endswith("Z a line of the test") and log.ring.maxlen
