"""A whole session at the serial line of a booted server: from Enter to PID 1's lines again."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from visitor import BOOT_S, start_guest

from console_screen import Screen
from thimble.cli.demo import after
from thimble.client.http import Client
from thimble.client.trust import Trust
from thimble.contract.host import Login
from thimble.core.problem import Code, Problem
from thimble.lab import home
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.server import LabServer
from thimble.lab.spec import STATE_LABEL, LabDisk, LabNic

STEP_S = 60.0


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        LabServer.attach(entry.name).down(force=True)


class Seat:
    """Somebody with a terminal on the server's serial line."""

    def __init__(self, server: LabServer) -> None:
        self.server = server
        self.wire: socket.socket = home.connect(server.home / "serial.sock", timeout=5)
        self.screen = Screen()
        self.raw = b""

    def __enter__(self) -> Seat:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def types(self, *keys: str) -> None:
        for key in keys:
            self.wire.sendall(key.encode())

    def hears(self, seconds: float) -> bool:
        """Takes what comes; false when nothing did."""
        if not select.select([self.wire], [], [], seconds)[0]:
            self.server.check()
            return False
        data = self.wire.recv(65536)
        self.raw += data
        self.screen.feed(data)
        return True

    def sees(self, wanted: str, timeout: float = STEP_S) -> str:
        deadline = time.monotonic() + timeout
        while wanted not in self.screen.text:
            assert time.monotonic() < deadline, f"no {wanted!r} on:\n{self.screen.text}"
            self.hears(0.2)
        return self.screen.text

    def chooses(self, label: str) -> None:
        """By its number in the menu."""
        self.sees(label)
        row = next(line for line in self.screen.lines if label in line)
        self.types(row.split(label)[0].strip(" >"))


def test_everything_can_be_done_at_the_serial_line(image: Path) -> None:
    def run(attempt: int) -> None:
        disk = LabDisk(size_bytes=512 << 20, label=STATE_LABEL)
        server = LabServer.up(spec_of_image(image, name="dcui-seat", disks=(disk,), nics=(LabNic(),)))
        try:
            session(server)
        finally:
            server.down(force=True)

    with_retries(run)


def session(server: LabServer) -> None:
    server.wait_for(b"thimble: ready in ", BOOT_S)
    fingerprint, password = after(server, b"certificate SHA-256 "), after(server, b"login admin, password ")
    server.wait_for(b"press Enter for the console", BOOT_S)
    client = Client(f"https://127.0.0.1:{server.forward(443)}", trust=Trust(fingerprint=fingerprint))
    client.token = client.call("session.create", Login(user="admin", password=password)).token
    start_guest(client)
    with Seat(server) as seat:
        seat.types("noise\r", "\x01\x7f\xff\r", "more of it\r")
        seat.types("\r")
        seat.sees("To manage this host, go to")
        seat.sees(fingerprint)
        signs_in(seat, password)
        ends_and_starts_a_vm(seat, client)
        changes_the_network_and_takes_it_back(seat, client)
        applies_a_typed_document(seat, client)
        seat.types("\x1b[21~")  # F10
        seat.sees("press Enter for the console")
    client.call("session.get")
    server.power_button()
    server.wait_for(b"power button", STEP_S)


def signs_in(seat: Seat, password: str) -> None:
    seat.types("\r")
    seat.sees("Password")
    seat.types("wrong one", "\r")
    seat.sees("the password is wrong")
    seat.types(password, "\r")
    seat.sees("Virtual machines")


def ends_and_starts_a_vm(seat: Seat, client: Client) -> None:
    seat.types("1")
    seat.sees("tiny")
    seat.types("\r")
    seat.chooses("Power off")
    seat.sees("What it does:")
    seat.types("\r")
    seat.sees("stopped, 1 vCPUs")
    seat.types("1")
    seat.sees("running, 1 vCPUs")
    assert client.call("vm.get", path={"vm": "tiny"}).status.state == "running"
    seat.chooses("Serial console")
    seat.sees("tiny guest: up", 120)
    seat.types("\x1d", ".")
    seat.sees("Serial console")
    seat.types("\x1b")
    seat.sees("vCPUs    memory")
    seat.types("\x1b")
    seat.sees("Management network")


def changes_the_network_and_takes_it_back(seat: Seat, client: Client) -> None:
    seat.types("2")
    seat.sees("IPv4 address")
    seat.types("\x1b[B\x1b[B", "\x15", "10.0.2.77/24", "\x1b[B", "10.0.2.2")
    seat.types("\x1bOQ")  # F2
    seat.sees("What it does:")
    seat.types("\r")
    seat.sees("It is undone by itself in")
    seat.types("u")
    seat.sees("The management network is as before.")


def applies_a_typed_document(seat: Seat, client: Client) -> None:
    seat.sees("Host document")
    seat.types("3")
    seat.chooses("Type or paste")
    seat.sees("format = 1")
    seat.types("\x1b[A", "\x0b", 'nmae = "typed"', "\x1bOQ")
    assert "line 4, column 1" in seat.sees("did you mean 'name'?")
    seat.sees("<Enter> Go on")
    seat.types("\r")
    seat.sees("<F2> Check it")
    seat.types("\x1b[B\x1b[B", "\x0b", 'name = "typed"', "\x1bOQ")
    seat.sees("What it does:")
    seat.types("\r")
    seat.sees("Apply the host document: done")
    assert name(client) == "typed"


def name(client: Client) -> str:
    """The host's name, as it is told over the network: the old address may still be on its way back."""
    deadline = time.monotonic() + STEP_S
    while True:
        try:
            return str(client.call("host.get").name)
        except Problem as problem:
            if problem.code not in (Code.TIMEOUT, Code.UNAVAILABLE) or time.monotonic() > deadline:
                raise
