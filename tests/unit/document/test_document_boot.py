"""The document found at boot: read or fetched, applied when it is new, and a clear word when it cannot be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from thimble.contract.call import Call
from thimble.contract.document import Document, InstallEntry
from thimble.contract.document_api import DocumentText
from thimble.contract.verbs import Started
from thimble.core.problem import Code, Problem, Reason
from thimble.document import at_boot
from thimble.document.at_boot import BootDocument
from thimble.document.read import read
from thimble.document.records import digest, warnings
from thimble.host.pid1 import DocumentFacts, Init
from thimble.state.events import Events
from thimble.state.tasks import Tasks

TEXT = 'format = 1\n[host]\nname = "rack7"\n'


class Service:
    """Stands for `DocumentService`: reads, and remembers what it was given."""

    def __init__(self, tasks: Tasks) -> None:
        self.problem = ""
        self.known: set[str] = set()
        self.given: list[DocumentText] = []
        self.fails: Problem | None = None
        self.tasks = tasks

    def settled(self, sha256: str) -> bool:
        return sha256 in self.known

    async def settle(self, text: str, source: str) -> None:
        self.known.add(digest(text))

    async def apply(self, call: Call[DocumentText]) -> Started:
        read(call.input.text)
        self.given.append(call.input)

        async def work(_: object) -> dict[str, str]:
            if self.fails:
                raise self.fails
            return {"done": "renames the host"}

        return Started(task=self.tasks.start("document.apply", "host", work), subject="host")


class World:
    def __init__(self, run: Path) -> None:
        self.run = run
        self.said: list[str] = []
        self.slept: list[float] = []
        tasks = Tasks(Events(base=1, clock=lambda: 1.0), clock=lambda: 1.0, entropy=lambda n: bytes(n))
        self.service = Service(tasks)
        self.tasks = tasks

    def settle(self, found: DocumentFacts, *, timeout: float = 5.0, tries: int = 3) -> None:
        """Ends after `tries` pauses, as the host's end would end it."""

        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            if len(self.slept) == tries:
                raise asyncio.CancelledError
            await asyncio.sleep(0)

        async def story() -> None:
            service: Any = self.service
            boot = BootDocument(
                service, self.tasks, self.said.append, run=self.run, timeout=timeout, sleep=sleep
            )
            try:
                await boot.settle(found)
            except asyncio.CancelledError:
                pass

        asyncio.run(story())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Web:
    """Serves what `answers` says by path: bytes, a redirect (str), or None: it never answers."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | str | None] = {}
        self.asked: list[str] = []
        self.over = threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                answer = web.answers.get(self.path, b"")
                if answer is None:
                    web.over.wait(30)
                    return
                self.send_response(302 if isinstance(answer, str) else 200 if answer else 404)
                if isinstance(answer, str):
                    self.send_header("Location", answer)
                self.end_headers()
                if isinstance(answer, bytes):
                    self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.over.set()
    made.server.shutdown()
    made.server.server_close()


def test_a_document_on_a_volume_is_applied(world: World, tmp_path: Path) -> None:
    (tmp_path / "thimble.toml").write_text(TEXT)
    world.settle(DocumentFacts(path=str(tmp_path / "thimble.toml"), source="/dev/vda3 (THIMBLE)"))
    assert world.service.given == [DocumentText(text=TEXT, source="/dev/vda3 (THIMBLE)")]
    assert world.said == ["document /dev/vda3 (THIMBLE): applied, 1 changes"]
    assert world.service.problem == ""


def test_what_was_applied_to_its_end_is_not_applied_again(world: World, tmp_path: Path) -> None:
    (tmp_path / "thimble.toml").write_text(TEXT)
    world.service.fails = Problem(Code.NO_SPACE, "local is full")
    for fails, times in ((world.service.fails, 1), (None, 2), (None, 2)):
        world.service.fails = fails
        world.settle(DocumentFacts(path=str(tmp_path / "thimble.toml")))
        assert len(world.service.given) == times


def test_mistakes_are_shown_with_their_places(world: World, tmp_path: Path) -> None:
    (tmp_path / "thimble.toml").write_text("format = 1\n[hots]\n[vm]\n")
    world.settle(DocumentFacts(path=str(tmp_path / "thimble.toml"), source="/dev/vda3 (THIMBLE)"))
    assert world.said[0] == "document /dev/vda3 (THIMBLE) is not applied: the document has 2 mistakes"
    assert world.said[1] == "document 2:2: there is no 'hots' here; did you mean 'host'?"
    assert "3:1: " in world.service.problem or "3:2: " in world.service.problem


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "line 1 of the document is not UTF-8"),
        (b"#" * (1 << 21), "at most 1024 KiB"),
        (None, "cannot read"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(
    world: World, tmp_path: Path, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "thimble.toml").write_bytes(content)
    world.settle(DocumentFacts(path=str(tmp_path / "thimble.toml")))
    assert words in world.service.problem and words in world.said[0]


def test_what_pid_1_could_not_read_is_told(world: World) -> None:
    world.settle(DocumentFacts(source="/dev/vdb1", problem="its file system is damaged"))
    assert world.service.problem == "/dev/vdb1: its file system is damaged"


def test_what_stops_applying_is_told(world: World, tmp_path: Path) -> None:
    (tmp_path / "thimble.toml").write_text(TEXT)
    world.service.fails = Problem(
        Code.NO_SPACE, "creates VM a: full", reasons=(Reason(message="not done: starts VM a"),)
    )
    world.settle(DocumentFacts(path=str(tmp_path / "thimble.toml"), source="stick"))
    assert world.service.problem == "stick: creates VM a: full: not done: starts VM a"


def test_a_document_comes_by_address_through_a_redirect(world: World, web: Web) -> None:
    web.answers = {"/a": f"{web.url}/b", "/b": TEXT.encode()}
    world.settle(DocumentFacts(url=f"{web.url}/a"))
    assert world.service.given == [DocumentText(text=TEXT, source=f"{web.url}/a")]
    assert not (world.run / "document" / "fetched.toml").exists()


def test_an_address_that_hangs_is_tried_again_and_said_once(world: World, web: Web) -> None:
    web.answers = {"/a": None}
    world.settle(DocumentFacts(url=f"{web.url}/a"), timeout=0.3)
    assert world.slept == [5.0, 10.0, 20.0]
    assert len(world.said) == 1 and "tried again" in world.said[0]
    assert world.service.problem.startswith(f"{web.url}/a: ")
    assert world.service.given == []


def test_a_server_that_comes_up_late_is_in_time(world: World, web: Web) -> None:
    host = World(world.run)
    host.settle(DocumentFacts(url=f"{web.url}/late"), tries=1)
    assert "404" in host.service.problem
    web.answers = {"/late": TEXT.encode()}
    host.slept.clear()
    host.settle(DocumentFacts(url=f"{web.url}/late"))
    assert len(host.service.given) == 1


def test_a_pinned_address_believes_nothing_else(world: World, web: Web) -> None:
    web.answers = {"/a": TEXT.encode()}
    world.settle(DocumentFacts(url=f"{web.url}/a#sha256={'0' * 64}"))
    assert world.service.given == [] and "it is not accepted" in world.service.problem
    world.settle(DocumentFacts(url=f"{web.url}/a#sha256={digest(TEXT)}"))
    assert len(world.service.given) == 1


def test_a_giant_answer_is_refused(world: World, web: Web) -> None:
    web.answers = {"/a": b"#" * (1 << 21)}
    world.settle(DocumentFacts(url=f"{web.url}/a"), tries=1)
    assert "larger than" in world.service.problem


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/passwd", "nonsense"])
def test_what_is_no_address_is_not_tried_twice(world: World, url: str) -> None:
    world.settle(DocumentFacts(url=url))
    assert world.slept == [] and "is no http or https address" in world.service.problem


class First(Init):
    """PID 1 that searches for a while, then has found this or nothing."""

    def __init__(self, run: Path, found: DocumentFacts | None) -> None:
        super().__init__(run)
        self.looks = 0
        self.found = found

    @property
    def searched(self) -> bool:
        self.looks += 1
        return self.looks > 2

    @property
    def document(self) -> DocumentFacts | None:
        return self.found if self.looks > 2 else None


class Settled:
    """`DocumentService` and `BootDocument` in one: applies nothing, and says so."""

    def __init__(self, problem: str, disk: str) -> None:
        self.problem, self.disk = "", disk
        self.after = problem
        self.found: list[DocumentFacts] = []

    async def settle(self, found: DocumentFacts) -> None:
        self.found.append(found)
        self.problem = self.after

    def last_document(self) -> Document:
        return Document(format=1, install=InstallEntry(disk=self.disk))


@pytest.mark.parametrize(
    ("found", "problem", "disk", "settled", "installed"),
    [
        (DocumentFacts(path="/x"), "", "largest", 1, ["largest"]),
        (DocumentFacts(path="/x"), "", "", 1, []),
        (DocumentFacts(path="/x"), "a mistake", "largest", 1, []),
        (None, "", "largest", 0, []),
    ],
)
def test_the_host_is_installed_as_the_document_says_once_it_is_applied(
    tmp_path: Path, found: DocumentFacts | None, problem: str, disk: str, settled: int, installed: list[str]
) -> None:
    service: Any = Settled(problem, disk)
    disks: list[str] = []
    slept: list[float] = []

    async def install(entry: InstallEntry) -> None:
        disks.append(entry.disk)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    asyncio.run(at_boot.settle(First(tmp_path, found), service, service, install, sleep=sleep))
    assert (len(service.found), disks, len(slept)) == (settled, installed, 2)


def test_what_came_of_a_document_is_a_warning(tmp_path: Path) -> None:
    assert warnings(tmp_path, problem="", busy=False) == ()
    assert warnings(tmp_path, problem="disk: a mistake", busy=False) == ("document disk: a mistake",)
    (tmp_path / "document").mkdir()
    (tmp_path / "document" / "applying.json").write_text("{}")
    assert "not applied to its end" in warnings(tmp_path, problem="", busy=False)[0]
    assert warnings(tmp_path, problem="", busy=True) == ()
