"""A disk that hangs holds up nobody who asks how the host is."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from thimble.host import state_disk
from thimble.host.state_disk import StateDisk


def test_a_disk_that_hangs_is_a_warning_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = StateDisk(tmp_path)
    assert disk.warnings == ()
    release = threading.Event()

    def hang(where: Path) -> tuple[str, ...]:
        release.wait(30)
        return ()

    monkeypatch.setattr(state_disk, "warnings", hang)
    monkeypatch.setattr(state_disk, "ANSWER_S", 0.05)

    async def work() -> None:
        began = time.monotonic()
        await asyncio.gather(disk.look(), disk.look())
        assert time.monotonic() - began < 5
        assert "does not answer" in disk.warnings[0]
        release.set()
        while disk.warnings:
            await disk.look()

    asyncio.run(work())
