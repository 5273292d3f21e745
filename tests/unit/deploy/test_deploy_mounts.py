"""Turns at a partition, and what a killed agent left mounted."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from thimble.deploy.esp import Turns, release
from thimble.sys import mount


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_what_a_killed_agent_left_mounted_is_taken_away(tmp_path: Path) -> None:
    left = tmp_path / "deploy" / "vda2-0011"
    mount.mount("left", left, "tmpfs", data="size=64k")
    release(tmp_path)
    assert mount.mounted(left) is None and not left.exists()


def test_readers_share_and_a_writer_waits_for_them() -> None:
    turns, order = Turns(), []
    reading, written = threading.Event(), threading.Event()

    def write() -> None:
        reading.wait(5)
        with turns.taken("esp", alone=True):
            order.append("write")
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    with turns.taken("esp", alone=False), turns.taken("esp", alone=False):
        reading.set()
        assert not written.wait(0.2)
        order.append("read")
    assert written.wait(5)
    writer.join()
    assert order == ["read", "write"]
