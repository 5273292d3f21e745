"""Files from a web server that is well, and from some that are not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from thimble.core.problem import Code, Problem
from thimble.sys.fetch import fetch

BODY = b"image" * 1000


class Answers(BaseHTTPRequestHandler):
    released = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/silent":
            self.released.wait(20)
            return
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        if self.path == "/missing":
            self.send_error(404, "Not here")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY) * (2 if self.path == "/short" else 1)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    Answers.released.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Answers.released.set()
    server.shutdown()
    server.server_close()


def test_a_file_comes_whole_and_tells_its_progress(url: str, tmp_path: Path) -> None:
    told: list[float] = []
    asyncio.run(fetch(f"{url}/image", tmp_path / "image", limit=1 << 20, progress=told.append))
    assert (tmp_path / "image").read_bytes() == BODY
    assert told[-1] == 1.0


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("/missing", Code.UNAVAILABLE, "the server says 404"),
        ("/short", Code.UNAVAILABLE, "ended after|IncompleteRead|more expected"),
        ("/elsewhere", Code.UNAVAILABLE, "file:///etc/passwd' is not allowed"),
        ("/silent", Code.TIMEOUT, "said nothing for 1 s"),
    ],
)
def test_what_does_not_come_is_told_and_leaves_nothing(
    url: str, tmp_path: Path, path: str, code: Code, said: str
) -> None:
    refused(lambda: fetch(url + path, tmp_path / "image", limit=1 << 20, silence=1.0), code, said)
    assert not (tmp_path / "image").exists()


def test_more_than_the_limit_is_not_taken(url: str, tmp_path: Path) -> None:
    refused(lambda: fetch(f"{url}/image", tmp_path / "image", limit=100), Code.TOO_LARGE, "larger than")
    assert not (tmp_path / "image").exists()


def test_only_the_web_is_asked(tmp_path: Path) -> None:
    refused(lambda: fetch("file:///etc/passwd", tmp_path / "image", limit=100), Code.INVALID, "no http")


def refused(work: Callable[[], object], code: Code, said: str) -> None:
    with pytest.raises(Problem, match=said) as caught:
        asyncio.run(work())  # type: ignore[arg-type]
    assert caught.value.code is code
