"""The watch itself: it finds what blocks the loop, and nothing else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import blocking
from blocking import Watch


def test_a_blocking_call_on_the_loop_is_told_once_and_in_a_thread_it_is_not(tmp_path: Path) -> None:
    told: list[str] = []
    watch = Watch(told.append)
    slow = watch.watched("os.fsync", os.fsync)
    with (tmp_path / "file").open("wb") as file:
        slow(file.fileno())  # no loop

        async def story() -> None:
            await asyncio.to_thread(slow, file.fileno())
            assert told == []
            for _ in range(2):
                slow(file.fileno())

        asyncio.run(story())
    assert [line.split()[0] for line in told] == ["os.fsync"]


def test_it_waits_until_it_is_armed() -> None:
    told: list[str] = []
    ready = False
    wait = Watch(told.append, lambda: ready).watched("time.sleep", time.sleep)

    async def story() -> None:
        nonlocal ready
        wait(0)
        assert told == []
        ready = True
        wait(0)
        assert len(told) == 1

    asyncio.run(story())


AGENT = """
import asyncio, time
import blocking
from thimble import app
from thimble.http import server

async def serve(*, ready):
    time.sleep(0)
    ready(1)
    time.sleep(0)

server.serve = serve
app.main = lambda: asyncio.run(server.serve(ready=lambda port: None))
blocking.main()
"""


def test_the_agent_is_watched_from_ready_on(tmp_path: Path) -> None:
    file = tmp_path / "blocking"
    paths = {"THIMBLE_BLOCKING_FILE": str(file), "PYTHONPATH": str(Path(blocking.__file__).parent)}
    subprocess.run([sys.executable, "-c", AGENT], env={**os.environ, **paths}, check=True)
    assert [line.split()[0] for line in blocking.offences(file)] == ["time.sleep"]
