"""A booted host reports: when, and how often; on a clock of the test's own, to a server that is played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from thimble.contract.netboot import NeighbourReport, Stage
from thimble.core.problem import Problem
from thimble.netboot.report import (
    PAUSE_S,
    REPEAT_S,
    ROUTE_S,
    SPACE_S,
    HostState,
    Reporter,
    begin,
    fitting,
    own_url,
)
from thimble.netboot.report_http import ReportAddress
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.sys import log

URL = "http://10.0.0.1/n/t0k3n/report"


class Host:
    """What it has to report."""

    def __init__(self) -> None:
        self.problem = ""
        self.applied = False
        self.vms: list[tuple[str, str]] = []
        self.state = HostState(
            certificate_sha256="ab" * 32,
            name=lambda: "rack1",
            ready_s=lambda: 4.5,
            document=lambda: (self.problem, self.applied),
            vms=lambda: self.vms,
        )


class Server:
    """The other side and the way to it. `answers`: what is wrong with the next requests, then nothing."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.routes: list[OSError] = []
        self.got: asyncio.Queue[NeighbourReport] = asyncio.Queue()
        self.addresses: set[str] = set()

    async def source(self, address: ReportAddress) -> str:
        if self.routes:
            raise self.routes.pop()
        return "10.0.0.7"

    async def post(self, address: ReportAddress, body: bytes, *, timeout: float) -> str:
        self.addresses.add(address.target)
        why = self.answers.pop(0) if self.answers else ""
        if not why:
            self.got.put_nowait(msgspec.json.decode(body, type=NeighbourReport))
        return why


class Sleeps:
    """Whoever sleeps does so until the test lets it go on."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[tuple[float, asyncio.Future[None]]] = asyncio.Queue()

    async def __call__(self, seconds: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait((seconds, over))
        await over

    async def next(self, expected: float) -> Callable[[], None]:
        """Wait for somebody to sleep for `expected` seconds; what ends that."""
        seconds, over = await self._asked.get()
        assert seconds == expected
        return lambda: None if over.done() else over.set_result(None)

    async def over(self, expected: float) -> None:
        """Wait for it, and end it."""
        (await self.next(expected))()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(log, "say", lines.append)
    return lines


def play(
    story: Callable[[Reporter, Server, Sleeps], Coroutine[Any, Any, None]],
    server: Callable[[], Server] = Server,
    host: Host | None = None,
    port: int = 443,
) -> None:
    """A story beside a reporter that runs."""

    async def whole() -> None:
        other, sleeps = server(), Sleeps()
        reporter = Reporter(URL, (host or Host()).state.report, port=port, sleep=sleeps, http=other)
        running = asyncio.ensure_future(reporter.run())
        async with asyncio.timeout(30):
            await story(reporter, other, sleeps)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(whole())


def test_it_reports_when_ready_and_whatever_changes_and_where_it_is_found() -> None:
    host = Host()

    async def story(reporter: Reporter, server: Server, sleeps: Sleeps) -> None:
        first = await server.got.get()
        assert (first.stage, first.url, first.name, first.ready_s) == (
            Stage.READY,
            "https://10.0.0.7:8443/",
            "rack1",
            4.5,
        )
        host.applied, host.vms = True, [("web1", "running")]
        reporter.poke()
        await sleeps.over(SPACE_S)
        await sleeps.next(REPEAT_S)
        second = await server.got.get()
        assert (second.stage, second.vms[0].name, second.vms[0].state) == (Stage.APPLIED, "web1", "running")
        host.problem = "http://10.0.0.1/n/t0k3n/thimble.toml: line 3 is wrong"
        reporter.poke()
        await sleeps.over(SPACE_S)
        await sleeps.next(REPEAT_S)
        third = await server.got.get()
        assert (third.stage, third.problem) == (Stage.FAILED, "http://10.0.0.1/thimble.toml: line 3 is wrong")
        assert server.addresses == {"/n/t0k3n/report"}

    play(story, host=host, port=8443)


def test_a_poke_without_a_change_is_no_report_and_the_same_is_repeated_in_its_time() -> None:
    async def story(reporter: Reporter, server: Server, sleeps: Sleeps) -> None:
        first = await server.got.get()
        await sleeps.over(SPACE_S)
        repeat = await sleeps.next(REPEAT_S)
        for _ in range(3):
            reporter.poke()
            await settled()
        assert server.got.empty()
        repeat()
        assert await server.got.get() == first

    play(story)


def test_a_server_that_refuses_is_said_once_and_asked_less_and_less(said: list[str]) -> None:
    async def story(reporter: Reporter, server: Server, sleeps: Sleeps) -> None:
        for pause in (1, 2, 4, 8, 16, 32, 60, 60):
            await sleeps.over(pause)
        await server.got.get()
        assert said == ["report: 10.0.0.1 takes no report: it answers 403; tried again now and then"], (
            "and nowhere the token"
        )
        server.answers = ["gone"]
        (await _after_one(sleeps))()
        await sleeps.over(PAUSE_S[0])
        await server.got.get()
        assert len(said) == 2, "a new failure is said, and begins with the shortest pause"

    play(story, lambda: Server(*["it answers 403"] * 8))


async def settled() -> None:
    """Everybody who can go on without the test has done so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def _after_one(sleeps: Sleeps) -> Callable[[], None]:
    await sleeps.over(SPACE_S)
    return await sleeps.next(REPEAT_S)


def test_without_a_way_to_the_server_nothing_is_asked_or_said(said: list[str]) -> None:
    def unreachable() -> Server:
        server = Server()
        server.routes = [OSError(101, "Network is unreachable")] * 3
        return server

    async def story(reporter: Reporter, server: Server, sleeps: Sleeps) -> None:
        for _ in range(3):
            assert server.got.empty() and not server.addresses
            await sleeps.over(ROUTE_S)
        await server.got.get()
        assert not said

    play(story, unreachable)


def test_what_is_too_long_is_cut_so_that_the_contract_takes_it() -> None:
    host = Host()
    host.problem, host.vms = "\udc80" * 2000, [(f"vm{n}" + "x" * 100, "running" * 10) for n in range(300)]
    long = msgspec.structs.replace(host.state.report(), name="é" * 99)
    back = msgspec.json.decode(msgspec.json.encode(fitting(long)), type=NeighbourReport)
    assert (len(back.vms), len(back.name), len(back.problem), back.stage) == (256, 64, 1024, Stage.FAILED)


@pytest.mark.parametrize("url", ["https://a/report", "ftp://a/", "report", "http://", "http://a:x/"])
def test_only_plain_http_addresses_are_taken(url: str) -> None:
    with pytest.raises(Problem):
        ReportAddress(url)


def test_the_own_url_has_a_port_only_where_it_must() -> None:
    assert own_url("10.0.0.7", 443) == "https://10.0.0.7/"
    assert own_url("2001:db8::7", 8443) == "https://[2001:db8::7]:8443/"


def test_begun_it_hears_of_vms_and_ends_with_the_background() -> None:
    host = Host()

    async def story() -> None:
        server, sleeps = Server(), Sleeps()
        events, background = Events(base=1, clock=lambda: 1.0), Background()
        reporter = Reporter(URL, host.state.report, port=443, sleep=sleeps, http=server)
        begin(reporter, events, background)
        async with asyncio.timeout(30):
            await server.got.get()
            await _after_one(sleeps)
            events.publish("switch.changed", "lan")
            await settled()
            host.vms = [("web1", "running")]
            events.publish("vm.changed", "web1")
            assert (await server.got.get()).vms[0].name == "web1"
        await background.close()

    asyncio.run(story())
