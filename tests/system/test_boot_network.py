"""What a network gives to a booted server: addresses by DHCPv4 and DHCPv6, and the right time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from benchmarks.thimble_server import extended

from thimble.image import cpio
from thimble.lab import home
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.server import LabServer
from thimble.lab.spec import LabNic

BOOT_S = 240
NEIGHBOUR = "rdinit=/neighbour.py ip=192.168.66.1:::255.255.255.0 ip=[fd77::1]:::64"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        LabServer.attach(entry.name).down(force=True)


@pytest.fixture
def wire(tmp_path: Path) -> tuple[LabNic, ...]:
    return (LabNic(wire=f"network {tmp_path}"),)


def neighbour(image: Path, scratch: Path, wire: tuple[LabNic, ...]) -> LabServer:
    """A server that gives addresses and time to all others on the wire."""
    initrd = scratch / "initrd"
    script = Path(__file__).with_name("neighbour.py").read_bytes()
    initrd.write_bytes(extended((image / "initrd").read_bytes(), [cpio.file("neighbour.py", script, 0o755)]))
    plain = spec_of_image(image, name="neighbour", nics=wire, append=NEIGHBOUR)
    return LabServer.up(msgspec.structs.replace(plain, initrd=str(initrd)))


def in_2020(image: Path, name: str, wire: tuple[LabNic, ...], append: str = "") -> LabServer:
    """A server whose battery clock is years behind."""
    plain = spec_of_image(image, name=name, nics=wire, append=append)
    return LabServer.up(msgspec.structs.replace(plain, clock="2020-01-01T00:00:00"))


def test_a_server_gets_addresses_of_both_families_and_the_right_time_from_its_network(
    image: Path, tmp_path: Path, wire: tuple[LabNic, ...]
) -> None:
    def run(attempt: int) -> None:
        network = neighbour(image, tmp_path, wire)
        servers = [network]
        try:
            network.wait_for(b"neighbour: serving", BOOT_S)

            servers.append(both := in_2020(image, "both", wire))
            both.wait_for(b"thimble: https://192.168.66.1", BOOT_S)
            both.wait_for(b"thimble: https://[fd77::1", BOOT_S)
            for _ in ("IPv4", "IPv6"):  # as asked by either address
                network.wait_for(b" has the right time", BOOT_S)
            both.down(force=True)

            # no DHCPv4 here: whatever it knows of time servers came by DHCPv6
            servers.append(six := in_2020(image, "six", wire, "ip=10.9.9.9:::255.255.255.0"))
            six.wait_for(b"thimble: https://[fd77::1", BOOT_S)
            network.wait_for(b" has the right time", BOOT_S)
        finally:
            for server in servers:
                server.down(force=True)

    with_retries(run)
