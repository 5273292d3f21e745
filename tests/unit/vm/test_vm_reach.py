"""A QEMU that was silent is tried again: when something is asked of it, and by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from vm_table_world import TableWorld, ready

from thimble.contract.vm import PowerState
from thimble.core.problem import Code, Problem
from thimble.vm import monitor
from thimble.vm.driver import Driver
from thimble.vm.qemu import qmp
from thimble.vm.record import lifecycle
from thimble.vm.record.lifecycle import Verb


class Qemu:
    """Answers from the connection number `silent` + 1 on."""

    def __init__(self, silent: int, word: str = "running") -> None:
        self.silent, self.word = silent, word
        self.tried = 0
        self.asked: list[str] = []
        self.answers = asyncio.Event()

    async def connect(self, *_: object, **__: object) -> Qemu:
        self.tried += 1
        if self.tried <= self.silent:
            raise Problem(Code.UNAVAILABLE, "QEMU does not answer on qmp.sock")
        return self

    async def execute(self, name: str, *_: object, **__: object) -> dict[str, str]:
        self.asked.append(name)
        self.answers.set()
        return {"status": self.word}

    async def close(self) -> None:
        pass


async def adopted(where: Path, qemu: Qemu, patch: pytest.MonkeyPatch) -> Driver:
    """A driver that found `qemu` running."""
    patch.setattr(qmp, "connect", qemu.connect)
    one = TableWorld(where, PowerState.RUNNING, ready()).driver

    async def attach() -> None:
        one.engine.running = cast(Any, SimpleNamespace())

    patch.setattr(one.engine, "attach", attach)
    await one.adopt()
    return one


def test_a_silent_qemu_is_tried_again_when_something_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        qemu = Qemu(silent=1)
        one = await adopted(tmp_path, qemu, monkeypatch)
        assert one.status.why == monitor.SILENT
        await one.command(Verb.RESET, "system_reset")
        assert qemu.asked == ["query-status", "system_reset"]
        assert one.status.why == ""
        assert one.monitor._retry is None
        await one.close()

    asyncio.run(scenario())


def test_a_qemu_that_stays_silent_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        one = await adopted(tmp_path, Qemu(silent=9), monkeypatch)
        with pytest.raises(Problem) as caught:
            await one.command(Verb.RESET, "system_reset")
        assert caught.value.hint == "Kill the VM if it hangs."
        assert one.status.why == monitor.SILENT
        await one.close()
        assert one.monitor._retry is None

    asyncio.run(scenario())


def test_a_silent_qemu_is_tried_again_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        waits: list[int] = []

        def backoff(tries: int) -> float:
            waits.append(tries)
            return 0.0

        monkeypatch.setattr(lifecycle, "backoff", backoff)
        qemu = Qemu(silent=3, word="paused")
        one = await adopted(tmp_path, qemu, monkeypatch)
        async with asyncio.timeout(10):
            await qemu.answers.wait()
        await one.ask(lambda: asyncio.sleep(0))  # the actor is through
        assert (one.status.state, one.status.why) == (PowerState.PAUSED, "")
        assert waits == [1, 2, 3]
        await one.close()

    asyncio.run(scenario())


def test_a_connection_that_broke_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        qemu = Qemu(silent=0)
        one = await adopted(tmp_path, qemu, monkeypatch)

        async def lost() -> bool:
            one.engine.qmp = None
            return True

        monkeypatch.setattr(one.engine, "lost", lost)
        one._inbox.tell(qmp.LOST, {})
        await one.command(Verb.CHANGE, "cont", PowerState.RUNNING)
        assert qemu.tried == 2
        assert one.status.why == ""
        await one.close()

    asyncio.run(scenario())
