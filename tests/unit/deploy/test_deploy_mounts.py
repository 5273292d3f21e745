"""Turns at a partition, and what a killed agent left mounted."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from thimble.deploy.mounts import Mounts, PartitionLocks
from thimble.sys import mount


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_what_a_killed_agent_left_mounted_is_taken_away(tmp_path: Path) -> None:
    left = tmp_path / "deploy" / "vda2-0011"
    mount.mount("left", left, "tmpfs", data="size=64k")
    mounts = Mounts(tmp_path)
    try:
        mounts.tidy()
        assert mount.mounted(left) is None and not left.exists()
        mount.mount("mine", left, "tmpfs", data="size=64k")
        mounts.tidy()
        assert mount.mounted(left) == ("mine", "tmpfs"), "what this agent mounted stays"
    finally:
        subprocess.run(["umount", "-q", str(left)], check=False)


def test_with_nothing_left_there_is_nothing_to_do(tmp_path: Path) -> None:
    Mounts(tmp_path).tidy()
    assert not (tmp_path / "deploy").exists()


def test_readers_share_and_a_writer_waits_for_them() -> None:
    locks, order = PartitionLocks(), []
    reading, written = threading.Event(), threading.Event()

    def write() -> None:
        reading.wait(5)
        with locks.held("esp", alone=True):
            order.append("write")
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    with locks.held("esp", alone=False), locks.held("esp", alone=False):
        reading.set()
        assert not written.wait(0.2)
        order.append("read")
    assert written.wait(5)
    writer.join()
    assert order == ["read", "write"]
