"""What an agent leaves behind that was killed while a boot partition was mounted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from thimble.deploy import esp
from thimble.sys import mount


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_a_mount_left_by_a_killed_agent_is_taken_away(tmp_path: Path) -> None:
    left = tmp_path / "deploy" / "vda2-97b935db"
    mount.mount("tmpfs", left, "tmpfs")
    try:
        esp.release(tmp_path)
        assert mount.mounted(left) is None
        assert not left.exists()
    finally:
        subprocess.run(["umount", "-q", str(left)], check=False)


def test_with_nothing_left_there_is_nothing_to_do(tmp_path: Path) -> None:
    esp.release(tmp_path)
    assert not (tmp_path / "deploy").exists()
