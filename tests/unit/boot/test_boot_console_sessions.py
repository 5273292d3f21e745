"""A console is handed over at Enter and comes back, whatever the UI does meanwhile."""

from __future__ import annotations

import os
import pty
import signal
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from thimble.boot.children import Children
from thimble.boot.console import consoles, sessions
from thimble.boot.console.consoles import SystemConsoles
from thimble.boot.console.sessions import INVITATION, ConsoleSessions
from thimble.boot.loop import Loop
from thimble.boot.ramlog import RamLog


class Machine:
    """PID 1's loop with one console: a pseudo terminal."""

    def __init__(self, where: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[str], int]) -> None:
        self.keyboard, inner = pty.openpty()
        os.set_blocking(self.keyboard, False)
        self.name = os.ttyname(inner).removeprefix("/dev/")
        self.inner = inner
        self.before = termios.tcgetattr(inner)
        active, printk = where / "active", where / "printk"
        active.write_text(f"{self.name}\n")
        printk.write_text("3\t4\t1\t7\n")
        self.printk = printk
        monkeypatch.setattr(consoles, "ACTIVE", str(active))
        monkeypatch.setattr(sessions, "PRINTK", str(printk))
        self.loop = Loop(lambda what, error: pytest.fail(f"{what}: {error}"))
        self.consoles = SystemConsoles(self.loop)
        self.children = Children(self.loop, RamLog(str(where / "log")))
        self.up = True
        self.sessions = ConsoleSessions(
            self.loop, self.children, self.consoles, self.consoles.show, lambda: self.up, work
        )
        self.shown = b""

    def types(self, data: bytes) -> None:
        os.write(self.keyboard, data)

    def until(self, true: Callable[[], object], timeout: float = 20.0) -> None:
        end = time.monotonic() + timeout
        while not true():
            assert time.monotonic() < end, f"never happened; shown {self.shown!r}"
            self.turn()

    def turn(self) -> None:
        self.loop.run_once(0.01)
        self.children.reap()
        try:
            self.shown += os.read(self.keyboard, 65536)
        except BlockingIOError:
            pass

    def sees(self, wanted: bytes) -> None:
        self.until(lambda: wanted in self.shown)

    @property
    def taken(self) -> bool:
        return any(session.pid for session in self.sessions._sessions.values())


def draw(_tty: str) -> int:
    """A UI that makes a mess of the terminal until it gets a q."""
    import tty

    tty.setraw(0)
    os.write(1, b"drawn\x1b[?25l")
    while os.read(0, 1) != b"q":
        pass
    return 0


def fall(_tty: str) -> int:
    os.write(2, b"no memory\n")
    return 3


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path, monkeypatch, draw)
    yield made
    made.up = False
    for session in made.sessions._sessions.values():
        if session.pid:
            os.kill(session.pid, signal.SIGKILL)
    signal.set_wakeup_fd(-1)


def test_it_invites_once_and_starts_nothing_by_itself(machine: Machine) -> None:
    machine.sessions.open()
    machine.sessions.open()
    machine.sees(INVITATION.encode())
    assert machine.shown.count(INVITATION.encode()) == 1
    assert not machine.taken


@pytest.mark.parametrize("noise", [b"root\r", b" \r", b"\x01\x02\xff\xfe\r", b"ls -l\n", b"a" * 5000 + b"\r"])
def test_noise_on_the_line_starts_nothing(machine: Machine, noise: bytes) -> None:
    machine.sessions.open()
    machine.types(noise)
    for _ in range(20):
        machine.turn()
    assert not machine.taken


@pytest.mark.parametrize("enter", [b"\r", b"\n"])
def test_enter_hands_the_console_over_and_lines_wait_until_it_ends(machine: Machine, enter: bytes) -> None:
    machine.sessions.open()
    machine.types(enter)
    machine.sees(b"drawn")
    assert machine.printk.read_text() == sessions.QUIET_PRINTK
    machine.consoles.show("a disk is full")
    for _ in range(10):
        machine.turn()
    assert b"a disk is full" not in machine.shown
    machine.types(b"q")
    machine.sees(b"a disk is full")
    machine.until(lambda: machine.shown.count(INVITATION.encode()) == 2)
    assert machine.shown.index(b"\x1b[?25h") < machine.shown.index(b"a disk is full")
    assert termios.tcgetattr(machine.inner) == machine.before
    assert machine.printk.read_text() == "3 4 1 7"


def test_the_first_password_is_there_again_afterwards(machine: Machine) -> None:
    machine.sessions.open()
    machine.consoles.show_login("login admin, password x")
    machine.types(b"\r")
    machine.sees(b"drawn")
    machine.types(b"q")
    machine.until(lambda: machine.shown.count(b"password x") == 2)


def test_a_terminal_that_was_hung_up_with_the_session_is_opened_anew(machine: Machine) -> None:
    machine.sessions.open()
    machine.types(b"\r")
    machine.sees(b"drawn")
    deaf = os.open("/dev/null", os.O_RDONLY)  # as a hung up one it takes no byte
    os.dup2(deaf, machine.consoles._open[machine.name])
    os.close(deaf)
    machine.consoles.show("said meanwhile")
    machine.types(b"q")
    machine.sees(b"said meanwhile")
    machine.until(lambda: machine.shown.count(INVITATION.encode()) == 2)


def test_it_can_be_started_again(machine: Machine) -> None:
    machine.sessions.open()
    for round_ in (1, 2):
        machine.types(b"\r")
        machine.until(lambda round_=round_: machine.shown.count(b"drawn") == round_)  # type: ignore[misc]
        machine.types(b"q")
        machine.until(lambda: not machine.taken)


def test_one_that_is_killed_leaves_a_terminal_in_order(machine: Machine) -> None:
    machine.sessions.open()
    machine.types(b"\r")
    machine.sees(b"drawn")
    (session,) = machine.sessions._sessions.values()
    os.kill(session.pid, signal.SIGKILL)
    machine.sees(b"killed by signal 9")
    assert termios.tcgetattr(machine.inner) == machine.before


def test_a_fall_is_said_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, monkeypatch, fall)
    machine.sessions.open()
    machine.types(b"\r")
    machine.sees(b"ended (exit code 3): no memory")
    signal.set_wakeup_fd(-1)


def test_on_the_way_down_nothing_is_started(machine: Machine) -> None:
    machine.sessions.open()
    machine.up = False
    machine.types(b"\r")
    for _ in range(20):
        machine.turn()
    assert not machine.taken


def test_a_line_that_hung_up_is_not_watched_until_its_pause_is_over(machine: Machine) -> None:
    """It would be readable for ever."""
    machine.sessions.open()
    (session,) = machine.sessions._sessions.values()
    watched = session.fd
    assert watched >= 0
    os.close(machine.inner)
    keyboard, machine.keyboard = machine.keyboard, os.open("/dev/null", os.O_RDONLY)
    os.close(keyboard)
    machine.until(lambda: session.fd < 0)
    assert watched not in machine.loop._watched
    assert [timer.call is not None for timer in machine.loop._timers] == [True], "it is looked at again later"
