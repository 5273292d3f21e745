"""One report over HTTP: to a real server on the loopback, which may refuse, be silent or not there."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from thimble.netboot.report_http import ReportAddress, post, source


class Listener:
    """`answer` is what it says, once `go` is set."""

    def __init__(self) -> None:
        self.got: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.answer = 204
        self.go = threading.Event()
        self.go.set()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                listener.got.put((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                listener.go.wait(30)
                self.send_response(listener.answer)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True, args=(0.02,)).start()
        self.address = ReportAddress(f"http://127.0.0.1:{self.server.server_port}/n/t0k3n/report")


@pytest.fixture
def listener() -> Iterator[Listener]:
    one = Listener()
    yield one
    one.go.set()
    one.server.shutdown()
    one.server.server_close()


def sent(address: ReportAddress, timeout: float = 30.0) -> str:
    return asyncio.run(post(address, b"{}", timeout=timeout))


def test_it_is_posted_to_the_path_of_the_address(listener: Listener) -> None:
    assert sent(listener.address) == ""
    assert listener.got.get(timeout=30) == ("/n/t0k3n/report", b"{}")
    assert asyncio.run(source(listener.address)) == "127.0.0.1"


def test_a_refusal_is_answered_with_its_status(listener: Listener) -> None:
    listener.answer = 403
    assert sent(listener.address) == "it answers 403"


def test_a_server_that_is_not_there_refuses() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "refused" in sent(ReportAddress(f"http://127.0.0.1:{port}/report"))


def test_a_silent_server_is_hung_up_on(listener: Listener) -> None:
    listener.go.clear()
    assert sent(listener.address, timeout=0.05) in ("it takes too long", "timed out")


def test_whoever_is_cancelled_does_not_wait_for_a_silent_server(listener: Listener) -> None:
    listener.go.clear()

    async def story() -> None:
        asking = asyncio.ensure_future(post(listener.address, b"{}", timeout=300))
        await asyncio.to_thread(listener.got.get, timeout=30)
        asking.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(story()))  # it waits for the threads there are
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
