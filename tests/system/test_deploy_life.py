"""A host's life: installed, updated, saved from bad updates by itself, rolled back; with a mirror, too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stick
from deploy_host import Builds, Host
from visitor import until

from thimble.contract.deploy import (
    Deploy,
    InstallRequest,
    OutcomeState,
    Reboot,
    SlotState,
)
from thimble.contract.storage import Datastore
from thimble.core.problem import TABLE, Code
from thimble.lab import home
from thimble.lab.outer import with_retries
from thimble.lab.server import LabServer
from thimble.lab.spec import LabDisk, LabFirmware, LabMedium


@pytest.fixture(autouse=True)
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        LabServer.attach(entry.name).down(force=True)


def blank(path: Path, gib: int = 4) -> LabDisk:
    """A disk that outlives its servers."""
    with path.open("xb") as file:
        file.truncate(gib << 30)
    return LabDisk(file=str(path))


def lived(image: Path, tmp_path: Path, name: str, life: Callable[[Host, Builds, Path], None]) -> None:
    """A life, begun anew when the outer machine broke."""

    def run(attempt: int) -> None:
        scratch = tmp_path / str(attempt)
        scratch.mkdir()
        host = Host(image, name)
        try:
            life(host, Builds(image, scratch), scratch)
        finally:
            print(host.server.serial.tail(6000).decode(errors="replace"))
            host.power_off()

    with_retries(run)


def test_a_host_is_installed_from_a_stick_updated_by_kexec_and_rolled_back(
    image: Path, tmp_path: Path
) -> None:
    def life(host: Host, builds: Builds, scratch: Path) -> None:
        disk = blank(scratch / "disk.raw")
        host.power_on(LabMedium.IMG, (disk,))
        thimble = host.typed(scratch)
        thimble.ok("host", "key", "add", "tests", str(builds.signer.certificate))
        told = thimble("host", "install", "/dev/vdc", "--dry-run")
        assert told.returncode != 0 and "not possible:" in told.stdout, "there is no such disk"
        assert "/dev/vdb" in thimble.ok("host", "install", "/dev/vdb", "--dry-run")
        assert not host.deploy().installed
        assert thimble.ok("host", "install", "/dev/vdb", "--yes").startswith("installed ")
        host.power_off()

        host.power_on(LabMedium.NONE, (disk,))
        found = host.settled()
        assert found.installed and not found.trial and found.firmware == "uefi"
        assert [slot.state for slot in found.slots] == [SlotState.GOOD, SlotState.EMPTY]
        store = default_store(host)
        assert store.name == "data" and store.mounted and store.durable
        first = found.build

        thimble = host.typed(scratch)
        told = thimble("host", "update", str(builds.made("unsigned", signed=False)), "--yes", "--json")
        assert told.returncode == TABLE[Code.FORBIDDEN][1] and told.stdout == ""
        assert json.loads(told.stderr)["code"] == "forbidden" and "not signed" in told.stderr
        good = str(builds.made("good"))
        planned = thimble.ok("host", "update", good, "--dry-run", "--vms", "save")
        assert "saves the VMs and starts it without the firmware" in planned
        begun = thimble.json("host", "update", good, "--yes", "--guest-timeout", "10s")
        assert begun["verb"] == "deploy.update" and begun["problem"] is None
        second = outcome(host, OutcomeState.CONFIRMED)
        assert second.build != first and second.slots[1].running

        thimble = host.typed(scratch)
        assert "slot b" in thimble.ok("host", "deploy")
        assert "goes back to" in thimble.ok("host", "rollback", "--dry-run")
        assert "restarts into the other slot" in thimble.ok("host", "rollback", "--yes")
        back = outcome(host, OutcomeState.CONFIRMED)
        assert back.build == first and back.slots[0].running and back.slots[1].state is SlotState.GOOD

        host.update(builds.made("forgetful", words="thimble.state=ram"), Reboot.FIRMWARE)
        host.server.wait_for(b"is not good: the state is in ram", 240)
        third = outcome(host, OutcomeState.FAILED)
        assert third.build == first and third.slots[0].running
        assert third.last is not None and "and was in a partition before" in third.last.why
        assert any("did not get confirmed" in line for line in host.client.call("host.get").warnings)

        told = host.typed(scratch)("host", "rollback", "--yes")  # the forgetful one took its place
        assert told.returncode == TABLE[Code.CONFLICT][1] and "nothing to go back to" in told.stderr

    lived(image, tmp_path, "deploy-uefi", life)


def test_a_host_installs_itself_on_two_disks_and_a_panicking_update_is_undone(
    image: Path, tmp_path: Path
) -> None:
    def life(host: Host, builds: Builds, scratch: Path) -> None:
        a, b = blank(scratch / "a.raw"), blank(scratch / "b.raw")
        document = f'''format = 1
[install]
disk = "/dev/vda"
mirror = "/dev/vdb"
[update]
trust = ["""
{builds.certificate}"""]
'''
        volume = LabDisk(file=str(stick.volume(scratch / "document.raw", document)))
        host.power_on(LabMedium.ISO, (a, b, volume), LabFirmware.BIOS)
        host.server.wait_for(b"thimble: installed ", 300)
        host.power_off()

        host.power_on(LabMedium.NONE, (a, b), LabFirmware.BIOS)
        found = host.settled()
        assert found.installed and found.firmware == "bios" and found.mirror == "healthy"
        assert [device.in_step for device in found.devices] == [True, True]
        first = found.build

        host.update(builds.made("panics", words="rdinit=/nope panic=1"), Reboot.FIRMWARE)
        after = outcome(host, OutcomeState.FAILED, 600)
        assert after.build == first
        until("the slot is given up", lambda: host.deploy().slots[1].state is SlotState.BAD)
        until("both disks know it", lambda: all(device.in_step for device in host.deploy().devices))
        host.power_off()

        host.power_on(LabMedium.NONE, (b, blank(scratch / "c.raw")), LabFirmware.BIOS)
        alone = host.settled()
        assert alone.build == first and alone.mirror == "degraded"
        assert default_store(host).why, "what was on the other disk is not there, and says so"
        host.finish("deploy.install", InstallRequest(mirror="/dev/vdb"))
        joined = until("the new disk is in step", lambda: (d := host.deploy()).mirror == "healthy" and d)
        assert [device.in_step for device in joined.devices] == [True, True]

    lived(image, tmp_path, "deploy-bios", life)


def outcome(host: Host, state: OutcomeState, timeout: float = 300) -> Deploy:
    """How it went, as the next host that is ready tells."""
    host.ready(timeout)
    host.sign_in()
    found = host.settled()
    assert found.last is not None and found.last.state is state, found.last
    return found


def default_store(host: Host) -> Datastore:
    (found,) = [store for store in host.client.call("datastore.list").datastores if store.default]
    return found
