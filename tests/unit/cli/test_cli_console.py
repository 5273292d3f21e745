"""The console on a real terminal (a pseudo one) and on pipes, against a real WebSocket."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from websockets.sync.server import ServerConnection, serve

PROGRAM = """
import sys
from thimble.cli.console import attach
from thimble.client.http import Client
attach(Client(sys.argv[1]).console("web1"), "web1", timeout=float(sys.argv[2]) if sys.argv[2:] else None)
"""


@pytest.fixture
def guest() -> Iterator[str]:
    """A console that greets, and answers what it is told in capitals; `bye` makes it hang up."""

    def answer(link: ServerConnection) -> None:
        link.send(b"guest: up\r\n")
        for said in link:
            assert isinstance(said, bytes)
            link.send(said.upper())
            if b"bye" in said:
                return

    with serve(answer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(timeout=5)


def read_until(descriptor: int, wanted: bytes, timeout: float = 15) -> bytes:
    seen, deadline = b"", time.monotonic() + timeout
    while wanted not in seen:
        ready, _, _ = select.select([descriptor], [], [], deadline - time.monotonic())
        assert ready, f"no {wanted!r} in {seen!r}"
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # how a pseudo terminal says that nobody is left
            piece = b""
        assert piece, f"no {wanted!r} in {seen!r}"
        seen += piece
    return seen


class Terminal:
    def __init__(self, url: str) -> None:
        self.ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self.program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url], stdin=theirs, stdout=theirs, stderr=theirs
        )
        self.theirs = theirs

    def close(self) -> None:
        self.program.kill()
        self.program.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(guest: str) -> Iterator[Terminal]:
    made = Terminal(guest)
    yield made
    made.close()


def test_a_terminal_is_raw_while_it_is_a_console_and_as_before_afterwards(terminal: Terminal) -> None:
    read_until(terminal.ours, b"guest: up")
    os.write(terminal.ours, b"\x03hello\x1d\x1d")
    assert b"\x03HELLO\x1d" in read_until(terminal.ours, b"HELLO\x1d")
    assert not termios.tcgetattr(terminal.theirs)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    os.write(terminal.ours, b"\x1d.")
    read_until(terminal.ours, b"left the console")
    assert terminal.program.wait(timeout=10) == 0
    assert termios.tcgetattr(terminal.theirs) == terminal.before


def test_the_size_of_the_terminal_is_told_on_request(terminal: Terminal) -> None:
    read_until(terminal.ours, b"guest: up")
    termios.tcsetwinsize(terminal.theirs, (33, 111))
    os.write(terminal.ours, b"\x1dr")
    read_until(terminal.ours, b"STTY ROWS 33 COLS 111\r")


@pytest.mark.parametrize("how", ["guest hangs up", "SIGTERM"])
def test_the_terminal_is_put_back_however_it_ends(terminal: Terminal, how: str) -> None:
    read_until(terminal.ours, b"guest: up")
    if how == "SIGTERM":
        terminal.program.terminate()
    else:
        os.write(terminal.ours, b"bye")
    terminal.program.wait(timeout=10)
    assert termios.tcgetattr(terminal.theirs) == terminal.before


def piped(url: str) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    def run(said: bytes, *more: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, url, *more],
            input=said,
            capture_output=True,
            timeout=20,
            check=False,
        )

    return run


def test_pipes_carry_every_byte_and_no_words_of_ours(guest: str) -> None:
    done = piped(guest)(b"a\x1d.b\x00bye")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"guest: up\r\nA\x1d.B\x00BYE"


def test_the_end_of_the_input_does_not_end_the_output(guest: str) -> None:
    done = piped(guest)(b"hello", "1.0")
    assert done.stdout == b"guest: up\r\nHELLO"
