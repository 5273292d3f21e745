"""The agent dies at every step of create, start and delete in turn, and is started again on the same state:
what it says then is true, the work is finished or undone, and nothing has leaked.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from agent_place import Agent, Place, until
from msgspec.structs import replace

from thimble.client.http import Client
from thimble.contract.vm import (
    DeleteRequest,
    DirectBoot,
    DiskSpec,
    Firmware,
    Intent,
    NicSpec,
    PowerState,
    Vm,
    VmCreate,
)
from thimble.core.problem import Code, Problem
from thimble.vm.startup import cgroup_root

#: Every step there is; `test_the_table_has_every_step` watches it.
STEPS = {
    "vm.create": ("volumes", "firmware", "ready"),
    "vm.start": ("open", "ports", "spawn", "connect"),
    "vm.delete": ("volumes", "files", "record"),
}
POINTS = [f"{verb}/{step}{end}" for verb, steps in STEPS.items() for step in steps for end in ("", ".done")]
RESTING = {PowerState.STOPPED, PowerState.RUNNING, PowerState.CRASHED, PowerState.FAILED}


@pytest.fixture
def spec(images: tuple[str, str]) -> VmCreate:
    return VmCreate(
        name="victim", memory_mib=96, firmware=Firmware.DIRECT, vga=False, tablet=False,
        direct=DirectBoot(kernel=images[0], initrd=images[1], cmdline="console=ttyS0 quiet panic=-1"),
        disks=(DiskSpec(size_bytes=8 << 20),), nics=(NicSpec(switch="nat"),),
    )  # fmt: skip


def footprint(agent: Agent, place: Place) -> dict[str, object]:
    """Everything a VM leaves on the machine."""
    group = cgroup_root(agent.run)
    groups = [path for path in group.iterdir() if path.is_dir()] if group and group.is_dir() else []
    return {
        "processes": place.qemus(),
        "links": place.links(),
        "files": sorted((agent.state / "datastores").rglob("*")),
        "runtime": [path for path in (agent.run / "vms").iterdir() if path.is_dir()],
        "groups": groups,
    }


@pytest.fixture
def nothing_leaks(agent: Agent, place: Place, client: Client, images: tuple[str, str]) -> Iterator[None]:
    """What was before is what is afterwards."""
    until("the switch is up", lambda: any(link.startswith("tb-") for link in place.links()), 20)
    before = footprint(agent, place)
    yield
    assert footprint(agent, place) == before


def asked(client: Client, verb: str, spec: VmCreate) -> None:
    """Ask for it; the agent may die before it can answer."""
    with suppress(Problem):
        if verb == "vm.create":
            client.call(verb, spec)
        elif verb == "vm.start":
            client.call(verb, path={"vm": spec.name})
        else:
            client.call(verb, DeleteRequest(), path={"vm": spec.name})


def settled(client: Client, place: Place, name: str) -> Vm | None:
    """The VM when nothing works on it any more, None when there is none; its state is the truth."""

    def look() -> tuple[Vm | None] | None:
        if any(task.state == "running" for task in client.call("task.list").tasks):
            return None
        found = [row for row in client.call("vm.list").vms if row.name == name]
        if not found:
            return (None,)
        try:
            vm: Vm = client.call("vm.get", path={"vm": found[0].id})
        except Problem as problem:
            assert problem.code is Code.NOT_FOUND, (
                problem
            )  # its delete came to its end between the two questions
            return None
        unfinished = vm.intent is Intent.RUNNING and vm.status.state is PowerState.STOPPED
        return (vm,) if vm.status.state in RESTING and not unfinished else None

    (vm,) = until("nothing works on it any more", look, 60)
    running = [vm.status.pid] if vm and vm.status.state is PowerState.RUNNING else []
    assert place.qemus() == running
    return vm  # type: ignore[no-any-return]


def clean_up(client: Client, vm: Vm | None) -> None:
    if vm is None:
        return
    if "kill" in vm.allowed:
        client.finish(client.call("vm.kill", path={"vm": vm.id}), timeout=30)
    client.finish(client.call("vm.delete", DeleteRequest(), path={"vm": vm.id}), timeout=30)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.usefixtures("no_vms", "nothing_leaks")
def test_an_agent_that_dies_here_is_put_right_by_the_next(
    point: str, agent: Agent, place: Place, client: Client, spec: VmCreate
) -> None:
    verb = point.split("/")[0]
    agent.end()
    agent.start(THIMBLE_FAULT=point)
    if verb != "vm.create":
        client.finish(client.call("vm.create", spec), timeout=30)
    asked(client, verb, spec)
    assert agent.process is not None
    assert agent.process.wait(timeout=30) == 137
    agent.start()
    vm = settled(client, place, spec.name)
    if verb == "vm.create":
        assert vm is not None, "a create that was answered is finished"
        assert vm.status.state is PowerState.STOPPED
        assert [disk.size_bytes for disk in vm.disks] == [8 << 20]
    elif verb == "vm.start":
        assert vm is not None
        assert (vm.status.state is PowerState.RUNNING) == (vm.intent is Intent.RUNNING), vm.status
    else:
        assert vm is None, "a delete that was answered is finished"
    clean_up(client, vm)


@pytest.mark.usefixtures("no_vms", "nothing_leaks")
def test_the_table_has_every_step(client: Client, spec: VmCreate) -> None:
    after = client.call("vm.list").rev
    client.finish(client.call("vm.create", spec), timeout=30)
    client.finish(client.call("vm.start", path={"vm": spec.name}), timeout=30)
    client.finish(client.call("vm.kill", path={"vm": spec.name}), timeout=30)
    client.finish(client.call("vm.delete", DeleteRequest(), path={"vm": spec.name}), timeout=30)
    seen: dict[str, dict[str, None]] = {}
    for event in client.events(after, timeout=1.0):
        if event.kind == "task.changed" and event.detail["step"] and event.detail["verb"] in STEPS:
            seen.setdefault(event.detail["verb"], {})[event.detail["step"]] = None
    assert {verb: tuple(steps) for verb, steps in seen.items()} == STEPS


@pytest.mark.usefixtures("no_vms", "nothing_leaks")
def test_a_create_that_fails_by_itself_leaves_nothing(
    client: Client, agent: Agent, spec: VmCreate, tmp_path: Path
) -> None:
    broken = torn_image(agent.qemu_dir / "qemu-img", tmp_path)
    with broken.open("rb") as content:
        client.upload("image.upload", content, broken.stat().st_size, path={"image": "torn.qcow2"})
    started = client.call("vm.create", replace(spec, disks=(DiskSpec(image="torn.qcow2"),)))
    with pytest.raises(Problem) as caught:
        client.finish(started, timeout=30)
    assert caught.value.code is Code.FAILED
    assert "Traceback" not in caught.value.detail
    assert client.call("vm.list").vms == ()
    client.call("image.delete", path={"image": "torn.qcow2"})


def torn_image(qemu_img: Path, folder: Path) -> Path:
    """A qcow2 whose header is in order and whose first data cluster lies at no possible place."""
    plain, image = folder / "plain", folder / "torn.qcow2"
    plain.write_bytes(b"x" * (1 << 20))
    subprocess.run([qemu_img, "convert", "-O", "qcow2", plain, image], check=True)
    with image.open("r+b") as file:
        file.seek(40)
        (table,) = struct.unpack(">Q", file.read(8))
        file.seek(table)
        (entry,) = struct.unpack(">Q", file.read(8))
        file.seek(entry & 0x00FFFFFFFFFFFE00)
        file.write(struct.pack(">Q", 1 << 63 | 0x1234))
    return image
