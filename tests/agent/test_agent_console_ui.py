"""The console UI in a terminal of its own, against the real agent: sign in, VMs, the password."""

from __future__ import annotations

import fcntl
import os
import pty
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
from agent_place import PASSWORD, Agent

from console_screen import Screen
from thimble.client.http import Client
from thimble.contract.host import Login, PasswordChange
from thimble.contract.vm import DirectBoot, Firmware, PowerState, VmCreate
from thimble.core.problem import Code, Problem

OTHER = "a longer horse battery"


class Person:
    """Somebody at a terminal: types, and waits to see something."""

    def __init__(self, run: Path, *, charset: str = "utf-8", size: tuple[int, int] = (80, 24)) -> None:
        self.terminal, inner = pty.openpty()
        self.screen = Screen(*size)
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        argv = [sys.executable, "-m", "thimble.dcui", "--run", str(run), "--charset", charset]
        self.process = subprocess.Popen(
            argv, stdin=inner, stdout=inner, stderr=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "TERM": "vt220"},
        )  # fmt: skip
        os.close(inner)

    def types(self, *keys: str) -> None:
        for key in keys:
            os.write(self.terminal, key.encode())

    def sees(self, wanted: str, timeout: float = 30.0) -> str:
        """What is on the screen as soon as `wanted` is."""
        deadline = time.monotonic() + timeout
        while wanted not in self.screen.text:
            left = deadline - time.monotonic()
            assert left > 0, f"no {wanted!r} on:\n{self.screen.text}"
            if select.select([self.terminal], [], [], left)[0]:
                self.screen.feed(os.read(self.terminal, 65536))
        assert not self.screen.outside
        return self.screen.text

    def leave(self) -> int:
        """It ends by itself; its exit code."""
        deadline = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.terminal], [], [], 0.05)[0]:
                try:
                    self.screen.feed(os.read(self.terminal, 65536))
                except OSError:
                    break
        return self.process.wait(timeout=5)

    def close(self) -> str:
        if self.process.poll() is None:
            self.process.kill()
        said = self.process.communicate()[1].decode(errors="replace")
        os.close(self.terminal)
        return said


@pytest.fixture
def person(agent: Agent) -> Iterator[Person]:
    made = Person(agent.run)
    yield made
    said = made.close()
    print(said)
    assert "Traceback" not in said


def sign_in(person: Person, password: str = PASSWORD) -> None:
    person.sees("Sign in")
    person.types("\r")
    person.sees("Password")
    person.types(password, "\r")
    person.sees("Virtual machines")


def test_before_anybody_signs_in_the_status_is_there_and_nothing_else(agent: Agent, person: Person) -> None:
    person.sees("To manage this host, go to")
    shown = person.sees(agent.fingerprint)
    assert "CPU load" in shown
    assert "Memory" in shown
    assert (agent.run / "console.json").stat().st_mode & 0o777 == 0o600
    person.types("\x1b[24~")  # F12
    assert "Restart" not in person.sees("Password").splitlines()[1]


def test_a_wrong_password_is_told_and_the_right_one_lets_in(person: Person) -> None:
    person.sees("Sign in")
    person.types("\r")
    person.sees("Password")
    person.types("not this one", "\r")
    person.sees("the user name or the password is wrong")
    person.types(PASSWORD, "\r")
    person.sees("Virtual machines")


@pytest.mark.usefixtures("no_vms")
def test_a_vm_is_started_and_its_serial_line_is_here(
    client: Client, images: tuple[str, str], person: Person
) -> None:
    kernel, initrd = images
    wanted = VmCreate(
        name="seen", memory_mib=192, firmware=Firmware.DIRECT, vga=False, tablet=False,
        direct=DirectBoot(kernel=kernel, initrd=initrd, cmdline="console=ttyS0 quiet"),
    )  # fmt: skip
    client.finish(client.call("vm.create", wanted), timeout=60)
    sign_in(person)
    person.types("1")
    person.sees("seen")
    person.types("\r")
    person.sees("Start")
    person.types("1")
    person.sees("running, 1 vCPUs", 60)
    assert client.call("vm.get", path={"vm": "seen"}).status.state is PowerState.RUNNING
    person.sees("Serial console")
    row = next(line for line in person.screen.lines if "Serial console" in line)
    person.types(row.split()[0].lstrip(">▸") or row.split()[1])
    person.sees("[console of seen")
    person.sees("tiny guest: up", 90)
    person.types("\x1d", ".")
    person.sees("Power off")


def test_the_password_is_changed(agent: Agent, client: Client, person: Person) -> None:
    sign_in(person)
    person.types("5")
    person.sees("New password")
    person.types(PASSWORD, "\r", OTHER, "\r", OTHER, "\r")
    person.sees("The password is changed.")
    try:
        with pytest.raises(Problem) as refused:
            client.call("session.create", Login(user="admin", password=PASSWORD))
        assert refused.value.code is Code.UNAUTHENTICATED
    finally:
        session = client.call("session.create", Login(user="admin", password=OTHER))
        old, client.token = client.token, session.token
        client.call("session.password", PasswordChange(old=OTHER, new=PASSWORD))
        client.token = old


def test_without_an_agent_it_says_so_and_shows_the_log(agent: Agent, person: Person) -> None:
    person.sees("To manage this host, go to")
    agent.end(signal.SIGTERM)
    person.sees("does not answer")
    person.types("l")
    person.sees("Log")
    agent.start()
    person.types("\x1b")
    person.sees("To manage this host, go to", 60)


def test_a_window_changes_its_size_and_somebody_leaves(person: Person) -> None:
    person.sees("Sign in")
    person.screen = Screen(120, 40)
    fcntl.ioctl(person.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    os.killpg(person.process.pid, signal.SIGWINCH)
    person.sees("To manage this host, go to")
    assert "<Q>" in person.screen.lines[39]
    person.types("q")
    assert person.leave() == 0
