"""The agent dies at every step of create, start and delete in turn; a new one on the same directories makes
it true again, and nothing has leaked.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from vm_world import World, exit_code, needs_root

from thimble.contract.common import TaskState
from thimble.contract.vm import DeleteRequest, DiskSpec, Firmware, PowerState, VmCreate
from thimble.core.units import MIB
from thimble.sys import cgroup

CREATE = ("volumes", "firmware", "ready")
START = ("open", "ports", "spawn", "connect")
DELETE = ("volumes", "files", "record")
POINTS = [
    f"vm.{verb}/{step}{end}"
    for verb, steps in (("create", (*CREATE, *START)), ("start", START), ("delete", DELETE))
    for step in steps
    for end in ("", ".done")
]


def dies_at(root: Path, point: str) -> None:
    """An agent in a process of its own creates, starts, kills and deletes a VM, and ends at `point`."""

    def strike(at: str) -> None:
        if at == point:
            os._exit(137)

    async def live() -> None:
        world = await World(root, fault=strike).open()
        spec = VmCreate(
            name="web1", memory_mib=64, firmware=Firmware.UEFI, disks=(DiskSpec(size_bytes=MIB),),
            start=point.startswith("vm.create"), vga=False, tablet=False,
        )  # fmt: skip
        id = await world.create(spec)
        if not spec.start:
            await world.start(id)
        await world.done(await world.vms.power.kill(world.call(id)))
        await world.done(await world.vms.reconfigure.delete(world.call(id, DeleteRequest())))

    assert exit_code(live()) == 137, f"{point} was never reached"


async def settled(world: World) -> None:
    for task in world.tasks.all():
        ended = await world.tasks.wait(task.id, 60)
        assert ended.state is TaskState.DONE, ended


def qemus(root: Path) -> list[int]:
    """QEMUs whose log is below `root`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str((entry / "fd/2").readlink()).startswith(str(root)):
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


@needs_root
@pytest.mark.parametrize("point", POINTS)
def test_a_new_agent_finishes_what_a_dead_one_began(tmp_path: Path, point: str) -> None:
    dies_at(tmp_path, point)

    async def afterwards() -> None:
        world = await World(tmp_path).open()
        await settled(world)
        rows = (await world.vms.read.list(world.call())).vms
        running = qemus(tmp_path)
        if point.startswith("vm.delete"):
            assert rows == ()
        else:
            assert [row.state for row in rows] == [PowerState.RUNNING]
            vm = await world.get("web1")
            assert running == [vm.status.pid]
            assert [disk.size_bytes for disk in vm.disks] == [MIB]
            await world.done(await world.vms.power.kill(world.call("web1")))
            await world.done(await world.vms.reconfigure.delete(world.call("web1", DeleteRequest())))
        assert qemus(tmp_path) == []
        assert list((tmp_path / "state" / "datastores" / "local" / "vms").iterdir()) == []
        assert [path.name for path in (tmp_path / "run" / "vms").iterdir()] == [".opened"]
        root = world.vms.context.cgroups
        assert root is None or not root.exists() or not any(path.is_dir() for path in root.iterdir())
        await world.gone()
        if root is not None:
            cgroup.delete(root)

    try:
        asyncio.run(afterwards())
    finally:
        for pid in qemus(tmp_path):
            os.kill(pid, signal.SIGKILL)
