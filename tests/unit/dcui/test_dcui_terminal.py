"""The console UI on a real pseudo terminal, with no agent there: sizes, garbage, leaving, going away."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from console_screen import Screen
from thimble.core.problem import Code
from thimble.dcui import local
from thimble.dcui.api_thread import Link
from thimble.dcui.model import Ask, Failed, Load, Looked, Message


class Tty:
    """The UI as a child on a terminal; `reports` is what the terminal answers when asked for its size."""

    def __init__(
        self, run: Path, *, size: tuple[int, int] = (0, 0), reports: bytes = b"", idle: str = "60"
    ) -> None:
        self.outer, inner = pty.openpty()
        self.before = termios.tcgetattr(inner)
        self.inner = inner
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.screen = Screen(*(size if size[0] else (80, 24)))
        self.reports = reports
        self.raw = b""
        self.child = subprocess.Popen(
            [sys.executable, "-m", "thimble.dcui", "--run", str(run), "--idle", idle],
            stdin=inner, stdout=inner, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def hears(self, seconds: float = 0.1) -> None:
        if select.select([self.outer], [], [], seconds)[0]:
            data = os.read(self.outer, 65536)
            self.raw += data
            self.screen.feed(data)
            if b"\x1b[6n" in data and self.reports:
                os.write(self.outer, self.reports)

    def sees(self, wanted: str, timeout: float = 30) -> str:
        deadline = time.monotonic() + timeout
        while wanted not in self.screen.text:
            assert time.monotonic() < deadline, f"no {wanted!r} on:\n{self.screen.text}"
            self.hears()
        return self.screen.text

    def ends(self, timeout: float = 30) -> int:
        deadline = time.monotonic() + timeout
        while self.child.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            self.hears(0.05)
        return self.child.returncode


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "log").write_text("1.000 boot: hello\n2.000 agent: MemoryError: none left\n")
    (tmp_path / "boot.json").write_text(
        json.dumps({"warnings": ["the clock was wrong"], "state": {"kind": "ram"}})
    )
    return tmp_path


@pytest.fixture
def ttys() -> Iterator[list[Tty]]:
    made: list[Tty] = []
    yield made
    for one in made:
        if one.child.poll() is None:
            one.child.kill()
        said = one.child.communicate()[1].decode(errors="replace")
        assert "Traceback" not in said, said
        os.close(one.outer)
        os.close(one.inner)


def test_without_an_agent_it_says_what_pid_1_knows(run: Path, ttys: list[Tty]) -> None:
    ttys.append(tty := Tty(run, size=(80, 24)))
    tty.sees("does not answer")
    tty.sees("MemoryError: none left")
    tty.sees("the clock was wrong")
    os.write(tty.outer, b"l")
    tty.sees("1.000 boot: hello")


def test_a_line_without_a_size_asks_the_terminal(run: Path, ttys: list[Tty]) -> None:
    ttys.append(tty := Tty(run, reports=b"\x1b[30;100R"))
    tty.screen = Screen(100, 30)
    tty.sees("does not answer")
    tty.sees("<Q> Leave")
    assert "<Q> Leave" in tty.screen.lines[29]


def test_a_terminal_that_says_nothing_has_80_columns_and_24_rows(run: Path, ttys: list[Tty]) -> None:
    ttys.append(tty := Tty(run))
    tty.sees("<Q> Leave")
    assert "<Q> Leave" in tty.screen.lines[23]
    assert not tty.screen.outside


def test_leaving_puts_the_terminal_back(run: Path, ttys: list[Tty]) -> None:
    ttys.append(tty := Tty(run, size=(80, 24)))
    tty.sees("<Q> Leave")
    os.write(tty.outer, b"q")
    assert tty.ends() == 0
    assert termios.tcgetattr(tty.inner) == tty.before
    assert b"\x1b[?1049l" in tty.raw


def test_nobody_there_ends_it(run: Path, ttys: list[Tty]) -> None:
    ttys.append(tty := Tty(run, size=(80, 24), idle="1"))
    assert tty.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(run: Path, ttys: list[Tty], number: signal.Signals) -> None:
    ttys.append(tty := Tty(run, size=(80, 24)))
    tty.sees("<Q> Leave")
    tty.child.send_signal(number)
    assert tty.ends() == 0
    assert termios.tcgetattr(tty.inner) == tty.before


@pytest.mark.parametrize("seed", range(3))
def test_garbage_on_the_line_breaks_nothing(run: Path, ttys: list[Tty], seed: int) -> None:
    ttys.append(tty := Tty(run, size=(80, 24)))
    tty.sees("<Q> Leave")
    dice = random.Random(seed)
    for _ in range(40):
        os.write(tty.outer, bytes(dice.choices(range(256), k=60)).replace(b"\x03", b""))
        tty.hears(0.02)
        if tty.child.poll() is not None:
            break
    assert tty.child.poll() in (None, 0)
    assert not tty.screen.outside


def test_what_pid_1_left_may_be_broken_or_missing(tmp_path: Path) -> None:
    assert local.access(tmp_path) == local.Access()
    (tmp_path / "boot.json").write_text("{")
    (tmp_path / "console.json").write_bytes(b"\xff")
    assert local.look(tmp_path).warnings == ()
    assert local.access(tmp_path) == local.Access()
    assert local.log(tmp_path, 10) == ()


def answer(link: Link) -> Message:
    assert select.select([link], [], [], 30)[0]
    return link.take()[0]


def test_every_failure_of_a_question_is_a_word(tmp_path: Path) -> None:
    link = Link(tmp_path)
    for question in (
        Ask(to="host", verb="host.get"),
        Load("text", "/no/such/file"),
        Load("text", "http://127.0.0.1:1/x"),
    ):
        link.ask(question)
        said = answer(link)
        assert isinstance(said, Failed)
        assert said.ask is question
        assert said.problem.code in (Code.UNAVAILABLE, Code.NOT_FOUND)
    link.close()


def test_a_document_that_is_no_text_or_too_large_is_refused(tmp_path: Path) -> None:
    link = Link(tmp_path)
    for data, code in ((b"\xff\xfe", Code.INVALID), (b"a" * ((1 << 20) + 1), Code.TOO_LARGE)):
        (tmp_path / "document").write_bytes(data)
        link.ask(Load("text", str(tmp_path / "document")))
        said = answer(link)
        assert isinstance(said, Failed)
        assert said.problem.code is code
    link.close()


def test_looking_needs_nobody(tmp_path: Path) -> None:
    from thimble.dcui.model import Look

    link = Link(tmp_path)
    link.ask(Look(log=True))
    said = answer(link)
    assert isinstance(said, Looked)
    assert said.log == ()
    link.close()
