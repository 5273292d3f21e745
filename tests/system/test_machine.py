"""The machine itself, seen by a booted host: what the lab gave it, and what goes wrong with it."""

from __future__ import annotations

import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from benchmarks.thimble_server import extended
from deploy_host import until
from visitor import visit

from thimble.client.http import Client
from thimble.contract.hardware import Finding, Hardware, Health, Level, Logs, Sensors, Time
from thimble.contract.host import Blink
from thimble.contract.network import Switch, SwitchCreate, SwitchKind
from thimble.core.problem import Code, Problem
from thimble.image import cpio
from thimble.image.build import BuildOptions, build
from thimble.image.progress import on_stderr
from thimble.lab import home
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.render import mac_of, uuid_of
from thimble.lab.server import LabServer
from thimble.lab.spec import STATE_LABEL, Bus, LabDisk, LabNic

NAME = "machine"
MISCHIEF = 7777


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile that has drivers for real machines."""
    return build(BuildOptions(profile="server", out=tmp_path_factory.mktemp("server")), on_stderr).directory


@pytest.fixture(autouse=True)
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        LabServer.attach(entry.name).down(force=True)


def power_on(image: Path, scratch: Path) -> LabServer:
    """Two cards, an NVMe disk and a SATA one, a management controller."""
    initrd = scratch / "initrd"
    inside = cpio.file("mischief.py", Path(__file__).with_name("mischief.py").read_bytes(), 0o755)
    initrd.write_bytes(extended((image / "initrd").read_bytes(), [inside]))
    plain = spec_of_image(
        image,
        name=NAME,
        disks=(
            LabDisk(size_bytes=1 << 30, label=STATE_LABEL, bus=Bus.NVME),
            LabDisk(size_bytes=256 << 20, bus=Bus.AHCI),
        ),
        nics=(LabNic(forwards=(443, MISCHIEF)), LabNic(wire="machine-test", model="e1000e")),
        append="rdinit=/mischief.py",
    )
    return LabServer.up(msgspec.structs.replace(plain, initrd=str(initrd), bmc=True))


def test_a_host_knows_its_machine_and_how_it_is(full: Path, tmp_path: Path) -> None:
    def run(attempt: int) -> None:
        scratch = tmp_path / str(attempt)
        scratch.mkdir()
        server = power_on(full, scratch)
        try:
            client = visit(server)
            the_inventory_is_what_the_lab_gave(client)
            a_switch_is_bound_to_the_card(client)
            a_disk_that_fails_is_told_and_taken_back(server, client)
            the_controller_and_its_log_are_read(server, client)
            the_clock_and_the_log_are_told(client)
            a_port_blinks_and_a_disk_cannot(client)
            the_bundle_is_whole(client, scratch)
        finally:
            print(server.serial.tail(6000).decode(errors="replace"))
            server.down(force=True)

    with_retries(run)


def the_inventory_is_what_the_lab_gave(client: Client) -> None:
    found: Hardware = until("every disk has its driver", lambda: _with_disks(client, 2))
    assert found.problems == ()
    assert found.system.uuid == uuid_of(NAME)
    assert found.firmware.vendor and found.firmware.kind == "bios"
    assert (found.cpus.threads, "svm" in found.cpus.features) == (2, True)
    assert sum(one.size_bytes for one in found.memory.modules) == 2048 << 20
    assert {nic.mac: nic.driver for nic in found.nics} == {
        mac_of(NAME, 0): "virtio_net", mac_of(NAME, 1): "e1000e",
    }  # fmt: skip
    assert [nic.use for nic in found.nics if nic.mac == mac_of(NAME, 0)] == ["management"]
    disks = {disk.transport: disk for disk in found.disks}
    nvme, sata = disks["nvme"], disks["sata"]
    assert (nvme.name, nvme.size_bytes) == ("serial:disk0", 1 << 30)
    assert nvme.smart is not None and nvme.smart.passed and nvme.smart.temperature
    assert sata.size_bytes == 256 << 20 and sata.smart is not None and sata.smart.passed
    assert {"0108", "0106", "0200"} <= {one.class_id for one in found.pci}


def _with_disks(client: Client, count: int) -> Hardware | None:
    found: Hardware = client.call("host.hardware")
    return found if len(found.disks) == count else None


def a_switch_is_bound_to_the_card(client: Client) -> None:
    mac = mac_of(NAME, 1)
    made: Switch = client.call("switch.create", SwitchCreate(name="lan", kind=SwitchKind.BRIDGED, uplink=mac))
    assert made.uplink.startswith("e") and made.up
    until("it is told what the card is for", lambda: "switch lan" in _uses(client), 60)


def _uses(client: Client) -> list[str]:
    found: Hardware = client.call("host.hardware")
    return [nic.use for nic in found.nics]


def findings(client: Client, component: str) -> list[Finding]:
    found: Health = client.call("host.health", query={"thorough": 1})
    return [one for one in found.findings if one.component.startswith(component)]


def a_disk_that_fails_is_told_and_taken_back(server: LabServer, client: Client) -> None:
    assert findings(client, "disk") == []
    after = client.call("vm.list").rev
    server.qmp("qom-set", path=_nvme(server), property="smart_critical_warning", value=4)
    (one,) = findings(client, "disk serial:disk0")
    assert (one.level, one.reason) == (Level.CRITICAL, "it is no longer reliable")
    assert client.call("host.get").health == "critical"
    server.qmp("qom-set", path=_nvme(server), property="smart_critical_warning", value=0)
    assert findings(client, "disk") == []
    told = [
        (event.subject, event.detail["level"])
        for event in client.events(after, timeout=2)
        if event.kind == "host.health" and event.subject.startswith("disk")
    ]
    assert told == [("disk serial:disk0", "critical"), ("disk serial:disk0", "ok")]


def _nvme(server: LabServer) -> str:
    parts = server.qmp("qom-list", path="/machine/peripheral-anon")
    assert isinstance(parts, list)
    name = next(one["name"] for one in parts if one["type"] == "child<nvme>")
    return f"/machine/peripheral-anon/{name}"


def the_controller_and_its_log_are_read(server: LabServer, client: Client) -> None:
    sensors: Sensors = until("the controller answers", lambda: _with_bmc(client), 60)
    assert sensors.bmc is not None and (sensors.bmc.ipmi, sensors.bmc.events_total) == ("2.0", 0)
    assert order(server, b"note\n").startswith("noted")
    (one,) = findings(client, "BMC")
    assert one.level is Level.CRITICAL and "uncorrectable memory error" in one.reason
    shown: Sensors = client.call("host.sensors")
    assert shown.bmc is not None and [event.what for event in shown.bmc.events] == [
        "uncorrectable memory error"
    ]
    assert order(server, b"clear\n").startswith("cleared")
    assert findings(client, "BMC") == []


def _with_bmc(client: Client) -> Sensors | None:
    found: Sensors = client.call("host.sensors")
    return found if found.bmc is not None else None


def order(server: LabServer, what: bytes) -> str:
    with socket.create_connection(("127.0.0.1", server.forward(MISCHIEF)), timeout=30) as line:
        line.sendall(what)
        said = line.makefile("r").readline()
    assert not said.startswith("failed"), said
    return said


def the_clock_and_the_log_are_told(client: Client) -> None:
    found: Time = client.call("host.time")
    assert found.managed and "chronyd does not answer" not in found.why
    logs: Logs = client.call("host.logs", query={"lines": 5000})
    assert {"kernel", "boot", "agent"} <= {line.source for line in logs.lines}
    assert any("ready in" in line.text for line in logs.lines if line.source == "boot")
    assert [line.time for line in logs.lines] == sorted(line.time for line in logs.lines)
    for line in client.logs({"lines": 1}, timeout=20):
        assert line.text
        break


def a_port_blinks_and_a_disk_cannot(client: Client) -> None:
    client.call("host.blink", Blink(what=mac_of(NAME, 1), seconds=1))
    with pytest.raises(Problem) as problem:
        client.call("host.blink", Blink(what="serial:disk0"))
    assert problem.value.code is Code.UNSUPPORTED


def the_bundle_is_whole(client: Client, scratch: Path) -> None:
    with (scratch / "bundle.tar.gz").open("xb") as file:
        client.download("host.bundle", file)
    with tarfile.open(scratch / "bundle.tar.gz") as archive:
        about = archive.extractfile("thimble-support/bundle.json")
        assert about is not None
        missing = msgspec.json.decode(about.read())["missing"]
    assert set(missing) <= {"storage/mirrors.txt"}, missing
