"""A host's life: installed from the stick, updated, saved from bad updates by itself, rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_host import Builds, Host

from thimble.contract.deploy import (
    InstallRequest,
    KeyCreate,
    OutcomeState,
    Reboot,
    SlotState,
    UpdateRequest,
)
from thimble.core.problem import Code, Problem
from thimble.lab import home
from thimble.lab.outer import with_retries
from thimble.lab.server import Server
from thimble.lab.spec import Disk, Firmware, Medium


@pytest.fixture(autouse=True)
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        Server.attach(entry.name).down(force=True)


def blank(path: Path, gib: int) -> Disk:
    """A disk that outlives its servers."""
    with path.open("xb") as file:
        file.truncate(gib << 30)
    return Disk(file=str(path))


@pytest.mark.parametrize("firmware", [Firmware.UEFI, Firmware.BIOS])
def test_a_host_is_installed_and_updated_and_bad_updates_are_undone(
    image: Path, tmp_path: Path, firmware: Firmware
) -> None:
    def run(attempt: int) -> None:
        scratch = tmp_path / str(attempt)
        scratch.mkdir()
        host = Host(image, f"deploy-{firmware}")
        try:
            the_whole_life(host, Builds(image, scratch), blank(scratch / "disk.raw", 4), firmware)
        finally:
            print(host.server.serial.tail(6000).decode(errors="replace"))
            host.server.down(force=True)

    with_retries(run)


def the_whole_life(host: Host, builds: Builds, disk: Disk, firmware: Firmware) -> None:
    host.power_on(Medium.IMG, (disk,), firmware)
    host.client.call("key.create", KeyCreate(name="tests", certificate=builds.certificate))
    wanted = InstallRequest(disk="/dev/vdb")
    assert host.client.call("deploy.install", wanted, dry_run=True).possible
    host.finish("deploy.install", wanted)
    host.power_off()

    host.power_on(Medium.NONE, (disk,), firmware)
    found = host.settled()
    assert found.installed and not found.trial
    assert [slot.state for slot in found.slots] == [SlotState.GOOD, SlotState.EMPTY]
    (store,) = [store for store in host.client.call("datastore.list").datastores if store.default]
    assert store.name == "data" and store.mounted and store.durable
    first = found.build

    host.update(builds.made("good"), Reboot.FIRMWARE)
    host.ready()
    host.sign_in()
    found = host.settled()
    assert found.last is not None and found.last.state is OutcomeState.CONFIRMED
    assert found.build != first and found.slots[1].running
    second = found.build

    refused(host, builds.made("unsigned", signed=False), "not signed")
    host.update(builds.made("panics", words="rdinit=/nope panic=1"), Reboot.FIRMWARE)
    host.ready(600)  # tried until no try is left
    host.sign_in()
    found = host.settled()
    assert found.build == second and found.slots[1].running
    assert found.last is not None and found.last.state is OutcomeState.FAILED
    assert any("did not get confirmed" in line for line in host.client.call("host.get").warnings)

    host.update(builds.made("forgetful", words="thimble.state=ram"), Reboot.FIRMWARE)
    host.server.wait_for(b"is not good: the state is in ram", 200)
    host.ready(300)
    host.sign_in()
    found = host.settled()
    assert found.build == second and found.last is not None
    assert found.last.why == "the state is in ram, and was in a partition before"


def refused(host: Host, efi: Path, why: str) -> None:
    host.send(efi)
    with pytest.raises(Problem) as caught:
        host.finish("deploy.update", UpdateRequest(image="upload"))
    assert caught.value.code is Code.FORBIDDEN and why in caught.value.detail
