"""A virtual server, for real: the tiny guest as its image, its serial line, its buttons, its plug."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from thimble.core.problem import Code, Problem
from thimble.guest import tiny
from thimble.lab import home
from thimble.lab.outer import with_retries
from thimble.lab.server import LabServer
from thimble.lab.spec import STATE_LABEL, Bus, LabDisk, LabFirmware, LabNic, ServerSpec

pytestmark = [pytest.mark.system, pytest.mark.slow]

BOOT_S = 120


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        LabServer.attach(entry.name).down(force=True)


def power_on() -> LabServer:
    guest = tiny.ensure()
    spec = ServerSpec(
        name="test",
        cpus=1,
        memory_mib=512,
        kernel=str(guest.kernel),
        initrd=str(guest.initrd),
        append=guest.cmdline,
        disks=(LabDisk(size_bytes=64 << 20, label=STATE_LABEL), LabDisk(size_bytes=1 << 20, bus=Bus.NVME)),
        nics=(LabNic(forwards=(7,)),),
    )
    return LabServer.up(spec)


def greeting(port: int, timeout: float) -> bytes:
    """What the guest's greeter says; asked again while the guest refuses the connection."""
    deadline = time.monotonic() + timeout
    while True:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as wire:
            heard = wire.makefile("rb").read()
        if heard or time.monotonic() >= deadline:
            return heard


def test_a_server_boots_answers_and_survives_its_buttons() -> None:
    def run(attempt: int) -> None:
        server = power_on()
        try:
            server.wait_for(b"tiny guest: up", BOOT_S, mark="up")
            server.wait_for(b"tiny guest: address 10.0.2.15", BOOT_S)
            server.wait_for(b"tiny# ", BOOT_S)
            assert 0 < server.timeline["first_byte"] <= server.timeline["up"]
            assert server.cpu_seconds() > 0.5
            assert greeting(server.forward(7), timeout=30) == b"tiny guest: hello\n"
            server.ask(b"findfs LABEL=thimble-state; ls /dev/nvme0n1", b"/dev/vda\r\n/dev/nvme0n1", 30)
            assert [(entry.name, entry.running) for entry in home.entries()] == [("test", True)]

            server.reset()
            server.wait_for(b"tiny guest: up", BOOT_S)
            server.wait_for(b"tiny# ", BOOT_S)
            server.ask(b"mount /dev/vda /mnt && echo kept >/mnt/f && sync && echo syn''ced", b"synced", 30)

            server.cut_power()
            assert not server.running
            assert [entry.running for entry in home.entries()] == [False]

            server.power_on()
            server.wait_for(b"tiny# ", BOOT_S)
            server.ask(b"mount /dev/vda /mnt && cat /mnt/f", b"kept\r\n", 30)

            server.power_button()
            server.wait_for(b"tiny guest: power button", 30)
            assert server.wait_off(30)
        finally:
            server.down(force=True)
        assert home.entries() == []

    with_retries(run)


def test_a_panic_of_the_server_is_not_excused_as_a_crash_of_qemu() -> None:
    def run(attempt: int) -> None:
        server = power_on()
        try:
            server.wait_for(b"tiny# ", BOOT_S)
            server.ask(b"crash", b"tiny guest: up", BOOT_S)  # panic=-1: it reboots at once
            with pytest.raises(Problem) as caught:
                server.wait_for(b"words nobody says", 0.2)
            assert caught.value.code is Code.TIMEOUT
            assert type(caught.value) is Problem
        finally:
            server.down(force=True)

    with_retries(run)


def test_a_server_starts_its_first_disk_under_bios(tmp_path: Path) -> None:
    """A boot sector that writes `up` to the first serial port and halts."""
    code = bytes.fromhex("fa baf803 b075 ee b070 ee b00a ee f4 ebfd".replace(" ", ""))
    disk = tmp_path / "boot.raw"
    disk.write_bytes((code.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))

    def run(attempt: int) -> None:
        server = LabServer.up(
            ServerSpec(name="test", firmware=LabFirmware.BIOS, disks=(LabDisk(file=str(disk)),))
        )
        server.wait_for(b"up\n", BOOT_S)
        server.down(force=True)

    with_retries(run)
