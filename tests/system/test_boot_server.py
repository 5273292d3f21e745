"""PID 1 for real: the built image in a virtual server, its state partition, its buttons, its plug."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from thimble.lab import home
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.server import LabServer
from thimble.lab.spec import STATE_LABEL, Bus, LabDisk, LabFirmware, LabNic

BOOT_S = 180
STATE = LabDisk(size_bytes=256 << 20, label=STATE_LABEL)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        LabServer.attach(entry.name).down(force=True)


def power_on(
    image: Path, *, disks: tuple[LabDisk, ...] = (), append: str = "", nics: tuple[LabNic, ...] = (LabNic(),)
) -> LabServer:
    return LabServer.up(spec_of_image(image, name="boot", disks=disks, append=append, nics=nics))


def test_the_one_file_boots_under_uefi_and_runs_from_ram_where_there_is_no_state_partition(
    image: Path,
) -> None:
    def run(attempt: int) -> None:
        server = LabServer.up(spec_of_image(image, name="boot", firmware=LabFirmware.UEFI, nics=(LabNic(),)))
        try:
            server.wait_for(b"no partition is labelled thimble-state", BOOT_S)
            server.wait_for(b"thimble: ready in ", BOOT_S)
            server.wait_for(b"thimble: https://10.0.2.15/", BOOT_S)
        finally:
            server.down(force=True)

    with_retries(run)


def press_ctrl_alt_del(server: LabServer) -> None:
    keys = [{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")]
    server.qmp("send-key", keys=keys)


def test_a_server_keeps_its_state_over_reboot_power_loss_and_power_off(image: Path) -> None:
    def run(attempt: int) -> None:
        server = power_on(image, disks=(STATE,))
        try:
            server.wait_for(b"thimble: state is on /dev/vda", BOOT_S)
            server.wait_for(b"thimble: ready in ", BOOT_S)
            server.wait_for(b"thimble: https://10.0.2.15/", BOOT_S)

            press_ctrl_alt_del(server)
            server.wait_for(b"Ctrl-Alt-Del", BOOT_S)
            server.wait_for(b"thimble: rebooting", BOOT_S)
            after = server.wait_for(b"thimble: state is on /dev/vda", BOOT_S)
            assert b"checking the state partition" not in after, "the reboot left a clean file system"
            server.wait_for(b"thimble: ready in ", BOOT_S)

            server.cut_power()
            server.power_on()
            server.wait_for(b"thimble: checking the state partition /dev/vda", BOOT_S)
            server.wait_for(b"thimble: state is on /dev/vda", BOOT_S)
            server.wait_for(b"thimble: ready in ", BOOT_S)
            server.wait_for(b"thimble: https://10.0.2.15/", BOOT_S)

            assert press_power_until_off(server), "the power button ends in power off"
        finally:
            server.down(force=True)

    with_retries(run)


def press_power_until_off(server: LabServer) -> bool:
    """The button's driver comes after readiness: a press before that is lost, as on any machine."""
    for _ in range(30):
        server.power_button()
        if server.wait_off(4):
            return True
    return False


def test_two_state_partitions_on_two_buses_and_no_network_are_told_and_the_server_gets_ready(
    image: Path,
) -> None:
    def run(attempt: int) -> None:
        both = (msgspec.structs.replace(STATE, bus=Bus.NVME), msgspec.structs.replace(STATE, bus=Bus.AHCI))
        server = power_on(image, disks=both, nics=())
        try:
            before = server.wait_for(b"thimble: ready in ", BOOT_S)
            for words in (
                b"more than one partition is labelled thimble-state: /dev/nvme0n1, /dev/sda",
                b"thimble: no network card has a link yet",  # on a slow machine patience ends first
            ):
                if words not in before:
                    server.wait_for(words, BOOT_S)
        finally:
            server.down(force=True)

    with_retries(run)


def test_state_on_nvme_and_static_addresses_from_the_kernel_command_line(image: Path) -> None:
    def run(attempt: int) -> None:
        static = "ip=10.0.2.77::10.0.2.2:255.255.255.0:static-host::off:10.0.2.3 ip=[fec0::77]::[fec0::2]:64"
        server = power_on(image, append=static, disks=(msgspec.structs.replace(STATE, bus=Bus.NVME),))
        try:
            server.wait_for(b"thimble: state is on /dev/nvme0n1", BOOT_S)
            server.wait_for(b"thimble: ready in ", BOOT_S)
            server.wait_for(b"thimble: https://10.0.2.77/", BOOT_S)
        finally:
            server.down(force=True)

    with_retries(run)
