"""The HTTP side over a real connection: scripts, parts, documents, reports; and nothing for strangers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import pytest

from thimble.contract.netboot import DocumentFor, NeighbourReport, NeighbourVm, ServeBoot, Stage
from thimble.core.problem import Problem
from thimble.http.request import Receive, Scope, Send
from thimble.http.server import Server
from thimble.netboot.http import REPORT_MAX, Span, application
from thimble.netboot.image import ServedImage
from thimble.netboot.responder import Responder
from thimble.state.events import Events

MAC = "52:54:00:00:00:01"
TEXT = 'format = 1\n[host]\nname = "node{{n}}"\n'


class World:
    """A responder behind a port; `mac` is whom the kernel sees asking, `now` the time."""

    port: int
    loop: asyncio.AbstractEventLoop

    def __init__(self, root: Path) -> None:
        self.root, self.mac, self.now = root, MAC, 100.0
        self.told: list[str] = []
        (root / "image.efi").write_bytes(b"....KERNEL" + b"r" * 300_000)
        self.image = ServedImage(
            300_010, Span(root / "image.efi", 4, 6), Span(root / "image.efi", 10, 300_000), "quiet"
        )
        self.again()
        self.open()

    def again(self) -> None:
        """As the next agent."""
        events = Events(base=1, clock=lambda: self.now)
        events.listen(lambda event: self.told.append(event.kind))
        numbers = iter(range(1, 1000))
        self.responder = Responder(
            self.root / "state",
            events,
            durable=False,
            clock=lambda: self.now,
            entropy=lambda count: bytes((next(numbers),)) * count,
            mac_of=lambda peer, link: self.mac if (peer, link) == ("127.0.0.1", "br") else "",
        )

    def open(self, *allow: str, most: int = 64) -> None:
        documents = (DocumentFor(match="any", text=TEXT),)
        wanted = ServeBoot(switch="rack", allow=allow or ("any",), documents=documents, most=most)
        self.responder.open(wanted, "10.9.0.1", "br", self.image)

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        line = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            line.request(method, path, body)
            answer = line.getresponse()
            return answer.status, answer.read()
        finally:
            line.close()

    def token(self) -> str:
        status, script = self.ask("/boot?serial=S%201")
        assert status == 200
        return script.decode().split("/n/", 1)[1].split("/", 1)[0]

    def report(self, token: str, stage: Stage, **more: Any) -> int:
        told = NeighbourReport(stage=stage, name="node1", **more)
        return self.ask(f"/n/{token}/report", "POST", msgspec.json.encode(told))[0]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    loop = made.loop = asyncio.new_event_loop()
    ready = Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await application(made.responder)(scope, receive, send)

    async def serve() -> None:
        server = Server(app, tls=None)
        await server.listen("127.0.0.1", 0)
        made.port = server.port
        ready.set()
        await over.wait()
        await server.close(0.1)

    over = asyncio.Event()
    thread = Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield made
    loop.call_soon_threadsafe(over.set)
    thread.join(10)
    loop.close()


def test_a_machine_gets_its_script_its_image_and_its_document(world: World) -> None:
    assert b"chain http://10.9.0.1/boot?serial=${serial:uristring}" in world.ask("/boot.ipxe")[1]
    token = world.token()
    assert world.ask(f"/n/{token}/vmlinuz") == (200, b"KERNEL")
    assert world.ask(f"/n/{token}/initrd") == (200, b"r" * 300_000)
    assert world.ask(f"/n/{token}/thimble.toml") == (200, TEXT.replace("{{n}}", "1").encode())
    (found,) = world.responder.neighbours()
    assert (found.number, found.mac, found.serial, found.boots, found.document) == (1, MAC, "S 1", 1, "any")
    assert (found.stage, found.loaded) == (Stage.LOADED, 100.0)
    assert found.bytes_sent == 300_006 + len(TEXT) - 4
    assert world.told == ["netboot.asked", "neighbour.changed"]


def test_a_head_tells_the_length_and_sends_nothing(world: World) -> None:
    token = world.token()
    assert world.ask(f"/n/{token}/initrd", "HEAD") == (200, b"")
    assert world.responder.neighbours()[0].stage is Stage.ASKED


def test_it_reports_and_the_next_agent_hears_it_as_well(world: World) -> None:
    token = world.token()
    vms = (NeighbourVm(name="web1", state="running"),)
    assert world.report(token, Stage.READY) == 204
    world.now = 130.0
    assert world.report(token, Stage.APPLIED, vms=vms) == 204
    (found,) = world.responder.neighbours()
    assert (found.stage, found.ready, found.applied, found.seen) == (Stage.APPLIED, 100.0, 130.0, 130.0)
    assert found.report is not None and found.report.vms == vms
    world.again()
    world.open()
    assert world.responder.neighbours()[0].number == 1
    assert world.report(token, Stage.APPLIED) == 204
    assert world.token() == token, "what runs can go on reporting"
    assert world.responder.neighbours()[0].boots == 2


@pytest.mark.parametrize(
    ("path", "method", "body", "status"),
    [
        ("/", "GET", None, 404),
        ("/n/x/vmlinuz", "GET", None, 404),
        ("/n//vmlinuz", "GET", None, 404),
        ("/n/TOKEN/shadow", "GET", None, 404),
        ("/n/TOKEN/../../etc/passwd", "GET", None, 404),
        ("/boot", "DELETE", None, 405),
        ("/n/x/report", "POST", b"{}", 403),
        ("/n/TOKEN/report", "POST", b"{}", 403),
        ("/n/TOKEN/report", "POST", b'{"stage": "asked", "name": "x"}', 403),
        ("/n/TOKEN/report", "POST", b"x" * (REPORT_MAX + 1), 403),
        ("/n/TOKEN/report", "POST", b'{"stage": "ready", "name": "' + b"x" * 65 + b'"}', 403),
    ],
)
def test_what_is_not_there_or_not_right_is_refused(
    world: World, path: str, method: str, body: bytes | None, status: int
) -> None:
    token = world.token()
    assert world.ask(path.replace("TOKEN", token), method, body) == (status, b"")
    assert world.responder.neighbours()[0].report is None


def test_nothing_is_served_to_strangers_and_they_fill_no_log(world: World) -> None:
    world.open("52:54:00:00:00:99", "serial:S9")
    for _ in range(5):
        assert world.ask("/boot?serial=S1") == (403, b"")
    assert world.ask("/boot?serial=S9")[0] == 200, "known by its number"
    world.mac = ""
    assert world.ask("/boot?serial=S9") == (403, b""), "not from that wire"
    assert world.responder.refused == 6
    assert world.told.count("netboot.refused") == 2


def test_no_more_than_so_many_and_a_forgotten_one_makes_room(world: World) -> None:
    world.open("any", most=2)
    for last in (1, 2, 1):
        world.mac = f"52:54:00:00:00:0{last}"
        world.token()
    world.mac = "52:54:00:00:00:03"
    assert world.ask("/boot")[0] == 403
    token = world.responder._records.get("52-54-00-00-00-01").value.token
    asyncio.run_coroutine_threadsafe(world.responder.forget(MAC), world.loop).result(30)
    assert world.ask(f"/n/{token}/vmlinuz")[0] == 404
    world.token()
    assert [(one.number, one.mac[-2:]) for one in world.responder.neighbours()] == [(1, "03"), (2, "02")]
    with pytest.raises(Problem):
        world.responder.known(MAC)


def test_when_nothing_is_served_nothing_is_answered(world: World) -> None:
    token = world.token()
    world.responder.shut()
    assert world.ask("/boot")[0] == 403
    assert world.ask(f"/n/{token}/initrd")[0] == 404
    assert world.ask("/snponly.efi")[0] == 404
    assert world.report(token, Stage.READY) == 204, "those that run are heard"


def test_two_that_come_at_once_get_two_numbers_and_one_place_is_given_once(world: World) -> None:
    world.open("any", most=2)

    async def three() -> list[str | None]:
        asking = []
        for last in (1, 2, 3):
            world.mac = f"52:54:00:00:00:0{last}"
            asking.append(asyncio.ensure_future(world.responder.boot("127.0.0.1", b"")))
            await asyncio.sleep(0)  # up to its record, which is being written
        return await asyncio.gather(*asking)

    scripts = asyncio.run_coroutine_threadsafe(three(), world.loop).result(30)
    assert [script is not None for script in scripts] == [True, True, False]
    assert [(one.number, one.mac[-2:]) for one in world.responder.neighbours()] == [(1, "01"), (2, "02")]
