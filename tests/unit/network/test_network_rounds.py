"""Rounds of work: no wake-up is lost, and a burst costs two rounds."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from thimble.contract.call import Call
from thimble.contract.network import SwitchCreate, SwitchKind
from thimble.network import plan
from thimble.network.records import PortUse
from thimble.network.rounds import Rounds
from thimble.network.service import Network
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.sys import command, link


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


class Work:
    """Notes what each round saw; a round waits for `go`."""

    def __init__(self) -> None:
        self.wanted = 0
        self.seen: list[tuple[int, bool]] = []
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, *, thorough: bool) -> None:
        self.seen.append((self.wanted, thorough))
        self.began.set()
        await self.go.wait()


def test_whoever_asks_while_a_round_runs_gets_another_one() -> None:
    async def test() -> None:
        work = Work()
        rounds = Rounds("work", work, Background())
        work.go.clear()
        work.wanted = 1
        first = rounds.ask()
        await work.began.wait()
        work.wanted = 2
        late = rounds.ask()
        work.go.set()
        await first
        await late
        assert work.seen == [(1, False), (2, False)]

    run(test())


def test_a_burst_costs_two_rounds_and_one_who_wants_it_thorough_makes_it_so() -> None:
    async def test() -> None:
        work = Work()
        rounds = Rounds("work", work, Background())
        work.go.clear()
        asked = [rounds.ask()]
        await work.began.wait()
        asked += [rounds.ask(thorough=number == 7) for number in range(50)]
        work.go.set()
        await asyncio.gather(*asked)
        assert work.seen == [(0, False), (0, True)]
        await rounds.done()
        assert work.seen[2:] == [(0, False)]

    run(test())


def test_what_a_round_raises_reaches_its_askers_and_the_next_round_runs() -> None:
    async def test() -> None:
        calls = []

        async def work(*, thorough: bool) -> None:
            calls.append(thorough)
            if len(calls) == 1:
                raise OSError("no")

        rounds = Rounds("work", work, Background())
        with pytest.raises(OSError, match="no"):
            await rounds.done()
        await rounds.done()
        assert len(calls) == 2

    run(test())


def test_an_end_in_the_middle_leaves_nobody_waiting() -> None:
    async def test() -> None:
        work, background = Work(), Background()
        rounds = Rounds("work", work, background)
        work.go.clear()
        first = rounds.ask()
        await work.began.wait()
        second = rounds.ask()
        await background.close()
        assert first.cancelled() and second.cancelled()

    run(test())


class Kernel:
    """Answers for the host's links and rules; a look at the links waits for `go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks = 0
        self.go = asyncio.Event()
        self.go.set()
        self.rules: list[str] = []
        monkeypatch.setattr(link, "links", self._links)
        monkeypatch.setattr(link, "batch", self._batch)
        monkeypatch.setattr(command, "run", self._command)

    async def _links(self) -> dict[str, link.Link]:
        self.looks += 1
        await self.go.wait()
        return {}

    async def _batch(self, lines: list[str]) -> None:
        pass

    async def _command(self, argv: list[str], *, stdin: bytes = b"", **_: object) -> command.Result:
        if stdin:
            self.rules.append(stdin.decode())
        return command.Result(0, b"", b"")


def vm(number: int, switch: str) -> PortUse:
    mac = f"52:54:00:00:00:{number:02x}"
    return PortUse(vm_id=f"vm-{number}", vm_name=f"v{number}", nic="nic0", switch=switch, mac=mac)


def test_a_vm_that_changes_while_the_rules_are_made_is_seen_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last event of a burst: nothing comes after it that would heal what it missed."""

    async def test() -> None:
        kernel = Kernel(monkeypatch)
        seen: list[int] = []
        renders = plan.wanted

        def wanted(*given: Any) -> plan.Wanted:
            seen.append(len(given[1]))
            return renders(*given)

        monkeypatch.setattr(plan, "wanted", wanted)
        network = Network(tmp_path / "state", tmp_path / "run", events=Events(base=1, clock=lambda: 0.0))
        await network.open()
        switch = network.services()["switch"].get()
        await switch.create(Call(input=SwitchCreate(name="lab", kind=SwitchKind.ISOLATED)))
        hosts = [vm(1, "nat")]
        network.hosts = lambda: list(hosts)
        kernel.looks = 0
        kernel.go.clear()
        network.assigned["lab"] = "10.0.0.1/24"  # something is to be done
        network.events.publish("vm.changed", "vm-1")
        while not kernel.looks:
            await asyncio.sleep(0)
        hosts.append(vm(2, "nat"))
        network.events.publish("vm.changed", "vm-2")
        kernel.go.set()
        while not seen or seen[-1] != 2:
            await asyncio.sleep(0)
        await network.close()

    run(test())


def test_a_burst_of_events_renders_the_rules_a_few_times_and_not_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        Kernel(monkeypatch)
        network = Network(tmp_path / "state", tmp_path / "run", events=Events(base=1, clock=lambda: 0.0))
        await network.open()
        await network.sync()
        renders = plan.wanted
        count = 0

        def wanted(*given: Any) -> plan.Wanted:
            nonlocal count
            count += 1
            return renders(*given)

        monkeypatch.setattr(plan, "wanted", wanted)
        for number in range(100):
            network.events.publish("vm.changed", f"vm-{number}")
        await asyncio.gather(*(network.close_port(f"vm-{number}", "nic0") for number in range(100)))
        assert count <= 4
        await network.close()

    run(test())
