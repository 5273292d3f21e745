"""A booted host reports: against a real server on the loopback, which may be deaf, slow or gone."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from thimble.app import Agent
from thimble.contract.netboot import NeighbourReport, Stage
from thimble.core.problem import Problem
from thimble.netboot import report
from thimble.netboot.report import Reporter, Server, fitting, own_url, stand
from thimble.options import Options
from thimble.sys import log


class Listener:
    """`answer` is what it says, after `delay` seconds; `most` is how many asked at once."""

    def __init__(self) -> None:
        self.heard: list[NeighbourReport] = []
        self.paths: list[str] = []
        self.answer = 204
        self.delay = 0.0
        self.most = self.now = 0
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                listener.now += 1
                listener.most = max(listener.most, listener.now)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.paths.append(self.path)
                time.sleep(listener.delay)
                listener.heard.append(msgspec.json.decode(body, type=NeighbourReport))
                listener.now -= 1
                self.send_response(listener.answer)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True, args=(0.02,)).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/n/t0k3n/report"

    def stages(self) -> list[Stage]:
        return [one.stage for one in self.heard]


@pytest.fixture
def listener() -> Iterator[Listener]:
    one = Listener()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(log, "say", lines.append)
    return lines


class Host:
    """What it has to tell."""

    def __init__(self) -> None:
        self.problem = ""
        self.applied = False
        self.vms: list[tuple[str, str]] = []

    def __call__(self) -> NeighbourReport:
        return stand(
            name="rack1",
            certificate_sha256="ab" * 32,
            ready_s=4.5,
            problem=self.problem,
            applied=self.applied,
            vms=self.vms,
        )


async def until(condition: Callable[[], Any], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


def play(story: Callable[[], Any]) -> None:
    asyncio.run(story())


def test_it_reports_when_ready_and_whatever_changes_and_where_it_is_found(listener: Listener) -> None:
    host = Host()

    async def story() -> None:
        reporter = Reporter(listener.url, host, port=8443)
        running = asyncio.create_task(reporter.run())
        await until(lambda: listener.stages() == [Stage.READY])
        host.applied, host.vms = True, [("web1", "running")]
        reporter.poke()
        await until(lambda: len(listener.heard) == 2)
        for _ in range(3):  # nothing has changed: nothing is said
            reporter.poke()
            await asyncio.sleep(0.1)
        host.problem = "http://10.0.0.1/n/t0k3n/thimble.toml: line 3 is wrong"
        reporter.poke()
        await until(lambda: len(listener.heard) == 3)
        running.cancel()

    play(story)
    first, second, third = listener.heard
    assert first.url == "https://127.0.0.1:8443/" and first.name == "rack1" and first.ready_s == 4.5
    assert (second.stage, second.vms[0].name, second.vms[0].state) == (Stage.APPLIED, "web1", "running")
    assert (third.stage, third.problem) == (Stage.FAILED, "http://10.0.0.1/thimble.toml: line 3 is wrong")
    assert set(listener.paths) == {"/n/t0k3n/report"}


def test_it_says_the_same_again_so_that_it_is_seen(listener: Listener) -> None:
    async def story() -> None:
        running = asyncio.create_task(Reporter(listener.url, Host(), port=443, beat=0.1).run())
        await until(lambda: len(listener.heard) >= 3)
        running.cancel()

    play(story)
    assert listener.heard[0] == listener.heard[2] and listener.heard[0].url == "https://127.0.0.1/"


def test_a_server_that_refuses_is_said_once_and_asked_less_and_less(
    listener: Listener, said: list[str]
) -> None:
    listener.answer = 403

    async def story() -> None:
        running = asyncio.create_task(Reporter(listener.url, Host(), port=443, pause=(0.05, 0.4)).run())
        await asyncio.sleep(1.3)
        assert 3 <= len(listener.heard) <= 6  # after 0.05, 0.1, 0.2, 0.4, 0.4 s
        listener.answer = 204
        count = len(listener.heard)
        await until(lambda: len(listener.heard) > count)
        running.cancel()

    play(story)
    assert len(said) == 1 and "it says 403" in said[0] and "t0k3n" not in said[0]


def test_a_server_that_is_not_there_is_found_when_it_comes(said: list[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def story() -> None:
        url = f"http://127.0.0.1:{port}/report"
        running = asyncio.create_task(Reporter(url, Host(), port=443, pause=(0.05, 0.05)).run())
        await asyncio.sleep(0.4)
        running.cancel()

    play(story)
    assert len(said) == 1 and "refused" in said[0]


def test_one_request_at_a_time_and_none_for_longer_than_its_limit(
    listener: Listener, said: list[str]
) -> None:
    listener.delay = 0.3

    async def story() -> None:
        reporter = Reporter(listener.url, Host(), port=443, timeout=0.1, pause=(0.5, 0.5))
        running = asyncio.create_task(reporter.run())
        for _ in range(20):
            reporter.poke()
            await asyncio.sleep(0.05)
        running.cancel()

    play(story)
    assert len(said) == 1 and listener.most == 1


def test_an_agent_that_ends_does_not_wait_for_a_server_that_is_silent() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()

        async def story() -> None:
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}/report"
            running = asyncio.create_task(Reporter(url, Host(), port=443).run())
            await asyncio.sleep(0.3)
            running.cancel()

        began = time.monotonic()
        play(story)  # asyncio.run waits for the threads there are
        assert time.monotonic() - began < 2.0


def test_without_a_way_to_the_server_nothing_is_asked_or_said(
    listener: Listener, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "ROUTE_S", 0.02)
    ways: list[bool] = []

    def source(_: Server) -> str:
        ways.append(True)
        if len(ways) < 4:
            raise OSError(101, "Network is unreachable")
        return "127.0.0.1"

    monkeypatch.setattr(Server, "source", source)

    async def story() -> None:
        running = asyncio.create_task(Reporter(listener.url, Host(), port=443).run())
        await until(lambda: listener.heard)
        running.cancel()

    play(story)
    assert len(ways) >= 4 and not said


def test_what_is_too_long_is_cut_so_that_the_contract_takes_it() -> None:
    vms = [(f"vm{n}" + "x" * 100, "running" * 10) for n in range(300)]
    long = stand(
        name="é" * 99, certificate_sha256="ab" * 32, ready_s=1, problem="\udc80" * 2000, applied=True, vms=vms
    )
    back = msgspec.json.decode(msgspec.json.encode(fitting(long)), type=NeighbourReport)
    assert (len(back.vms), len(back.name), len(back.problem), back.stage) == (256, 64, 1024, Stage.FAILED)


@pytest.mark.parametrize("url", ["https://a/report", "ftp://a/", "report", "http://", "http://a:x/"])
def test_only_plain_http_addresses_are_taken(url: str) -> None:
    with pytest.raises(Problem):
        Server(url)


def test_the_own_url_has_a_port_only_where_it_must() -> None:
    assert own_url("10.0.0.7", 443) == "https://10.0.0.7/"
    assert own_url("2001:db8::7", 8443) == "https://[2001:db8::7]:8443/"


def agent(tmp_path: Path, facts: dict[str, Any], *, hosted: bool) -> Agent:
    """Composed, not run."""
    made = Agent(Options(state=tmp_path / "state", run=tmp_path / "run", hosted=hosted, port=443))
    (tmp_path / "run" / "boot.json").write_bytes(msgspec.json.encode(facts))
    made.fingerprint = "ab" * 32
    made.services["host"] = made._host_service(made.fingerprint)
    return made


def test_the_agent_reports_when_the_kernel_command_line_says_where(
    tmp_path: Path, listener: Listener
) -> None:
    async def story() -> None:
        facts = {
            "cmdline": {"thimble.report": listener.url},
            "document": {"problem": "its disk is gone", "source": "disk"},
            "searched": True,
        }
        one = agent(tmp_path, facts, hosted=False)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as init:
            init.bind(str(tmp_path / "run" / "init.sock"))
            await one._begin_report()
            await until(lambda: listener.heard)
            await one._begin_document()
            await until(lambda: len(listener.heard) == 2)

    play(story)
    assert listener.stages() == [Stage.READY, Stage.FAILED]
    assert "its disk is gone" in listener.heard[1].problem


@pytest.mark.parametrize("hosted", [True, False])
def test_other_agents_do_not_report(tmp_path: Path, listener: Listener, *, hosted: bool) -> None:
    async def story() -> None:
        words = {"thimble.report": listener.url} if hosted else {}
        one = agent(tmp_path, {"cmdline": words}, hosted=hosted)
        await one._begin_report()
        assert one.reporter is None

    play(story)
