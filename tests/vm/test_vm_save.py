"""VMs saved to disk and let go on, on real QEMU: what their guests had in memory is still there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from vm_world import World, in_world

from thimble.contract.common import TaskState
from thimble.contract.vm import (
    Autostart,
    DeleteRequest,
    DiskBus,
    DiskSpec,
    HostShutdown,
    Intent,
    Machine,
    PowerState,
    StartRequest,
    VmChange,
)
from thimble.core.problem import Code, Problem
from thimble.core.units import MIB

COUNT = "i=0; while true; do i=$((i+1)); echo count $i; sleep 0.2; done\n"


def file(world: World, id: str, name: str = "saved.state") -> Path:
    return world.root / "state" / "datastores" / "local" / "vms" / id / name


async def counting(world: World, **more: Any) -> str:
    """A VM whose guest counts, in its memory alone, and has come to three."""
    id = await world.create(world.tiny(**more))
    await world.start(id)
    await world.says(id, "tiny# ")
    await world.types(id, COUNT)
    await world.says(id, "count 3\r")
    return id


async def goes_on_counting(world: World, id: str) -> None:
    """It counts on from where it was: to numbers not seen before, without beginning anew."""
    text = (await world.vms.read.log(world.call(id))).text
    last = max(int(line.split()[1]) for line in text.splitlines() if line.startswith("count "))
    await world.says(id, f"count {last + 2}\r")
    text = (await world.vms.read.log(world.call(id))).text
    assert text.count("count 1\r") == 1


async def saved(world: World, id: str) -> None:
    await world.done(await world.vms.power.save(world.call(id)))
    assert (await world.get(id)).status.state is PowerState.SAVED


@in_world
async def test_a_saved_guest_goes_on_where_it_was(world: World) -> None:
    disks = (DiskSpec(size_bytes=MIB), DiskSpec(size_bytes=MIB, bus=DiskBus.SATA))
    id = await counting(world, disks=disks)
    assert (await world.get(id)).machine_type.startswith("pc-q35-")
    await saved(world, id)
    vm = await world.get(id)
    assert (vm.intent, vm.status.pid, vm.allowed) == (Intent.STOPPED, None, ("start", "change", "delete"))
    assert world.pids() == []
    assert file(world, id).stat().st_mode & 0o777 == 0o600
    await world.start(id)
    vm = await world.get(id)
    assert (vm.status.state, vm.intent) == (PowerState.RUNNING, Intent.RUNNING)
    assert [path.name for path in file(world, id).parent.glob("*.state*")] == []
    await goes_on_counting(world, id)
    await saved(world, id)  # and once more
    await world.start(id)
    await goes_on_counting(world, id)


@in_world
async def test_a_new_agent_knows_a_saved_vm_and_lets_it_go_on(world: World) -> None:
    id = await counting(world)
    await saved(world, id)
    await world.gone()
    again = await World(world.root).open()
    assert (await again.get(id)).status.state is PowerState.SAVED
    await again.start(id)
    await goes_on_counting(again, id)
    await again.done(await again.vms.power.kill(again.call(id)))
    await again.gone()


@in_world
async def test_a_paused_vm_is_paused_when_it_comes_back(world: World) -> None:
    id = await counting(world)
    await world.done(await world.vms.power.pause(world.call(id)))
    await saved(world, id)
    await world.start(id)
    assert (await world.get(id)).status.state is PowerState.PAUSED
    await world.done(await world.vms.power.resume(world.call(id)))
    await goes_on_counting(world, id)


@in_world
async def test_a_disk_plugged_in_meanwhile_is_there_after_a_resume(world: World) -> None:
    id = await counting(world, disks=(DiskSpec(size_bytes=MIB),))
    more = (DiskSpec(name="disk0"), DiskSpec(name="disk1", size_bytes=2 * MIB))
    await world.done(await world.vms.reconfigure.change(world.call(id, VmChange(disks=more))))
    await world.done(await world.vms.reconfigure.change(world.call(id, VmChange(disks=more[1:]))))
    await saved(world, id)
    await world.start(id)
    await goes_on_counting(world, id)


@in_world
async def test_what_cannot_be_saved_says_so_and_runs_on(world: World) -> None:
    for name, more, why in (
        ("micro", {"machine": Machine.MICROVM}, "a microvm cannot be saved"),
        ("nvme", {"disks": (DiskSpec(size_bytes=MIB, bus=DiskBus.NVME),)}, "NVMe"),
    ):
        id = await world.create(world.tiny(name, **more))
        await world.start(id)
        with pytest.raises(Problem) as caught:
            await world.vms.power.save(world.call(id))
        assert why in caught.value.detail
        assert caught.value.hint == "Stop it instead."
        assert (await world.get(id)).status.state is PowerState.RUNNING


@in_world
async def test_a_damaged_state_is_kept_until_somebody_decides(world: World) -> None:
    id = await counting(world)
    await saved(world, id)
    with file(world, id).open("r+b") as state:
        state.truncate(state.seek(0, os.SEEK_END) - 1)
    with pytest.raises(Problem) as caught:
        await world.vms.power.start(world.call(id))
    assert "damaged" in caught.value.detail
    assert "--discard-saved" in caught.value.hint
    vm = await world.get(id)
    assert (vm.status.state, vm.intent) == (PowerState.SAVED, Intent.STOPPED)
    await world.done(await world.vms.power.start(world.call(id, StartRequest(discard_saved=True))))
    assert not file(world, id).exists()
    assert (await world.get(id)).status.state is PowerState.RUNNING


@in_world
async def test_a_stream_that_qemu_does_not_take_leaves_the_vm_saved(world: World) -> None:
    id = await counting(world)
    await saved(world, id)
    with file(world, id).open("r+b") as state:
        state.seek(4096 * 3)
        state.write(b"\xff" * 8192)
    task = await world.ended(await world.vms.power.start(world.call(id)))
    assert task.state is TaskState.FAILED
    assert task.problem is not None
    assert "--discard-saved" in task.problem.hint
    vm = await world.get(id)
    assert (vm.status.state, vm.intent) == (PowerState.SAVED, Intent.STOPPED)
    assert "cannot go on" in vm.status.why
    assert file(world, id).exists()
    assert world.pids() == []
    assert any("cannot go on" in line for line in world.vms.warnings())


@in_world
async def test_a_state_that_is_missing_is_told_at_the_next_start(world: World) -> None:
    id = await counting(world)
    await saved(world, id)
    await world.gone()
    file(world, id).unlink()
    again = await World(world.root).open()
    vm = await again.get(id)
    assert (vm.status.state, vm.status.why) == (PowerState.FAILED, "its saved state is missing")
    with pytest.raises(Problem, match="missing"):
        await again.vms.power.start(again.call(id))
    await again.done(await again.vms.power.start(again.call(id, StartRequest(discard_saved=True))))
    await again.done(await again.vms.power.kill(again.call(id)))
    await again.gone()


@in_world
async def test_what_a_saved_guest_knows_of_cannot_be_changed_and_a_name_can(world: World) -> None:
    id = await counting(world)
    await saved(world, id)
    with pytest.raises(Problem) as caught:
        await world.vms.reconfigure.change(world.call(id, VmChange(memory_mib=256)))
    assert caught.value.code is Code.CONFLICT
    await world.done(await world.vms.reconfigure.change(world.call(id, VmChange(name="other"))))
    await world.start(id)
    await goes_on_counting(world, id)


@in_world
async def test_a_saved_vm_is_deleted_with_its_memory(world: World) -> None:
    id = await counting(world)
    await saved(world, id)
    await world.done(await world.vms.reconfigure.delete(world.call(id, DeleteRequest())))
    assert not file(world, id).parent.exists()


@contextmanager
def small_disk(where: Path, size: str) -> Iterator[None]:
    """A file system of that size on `where`, holding what was there."""
    kept = where.with_name("kept")
    where.rename(kept)
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(where)], check=True)
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", str(where)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


@in_world
async def test_a_disk_too_small_is_seen_before_anything_is_written(world: World) -> None:
    id = await counting(world)
    with small_disk(file(world, id).parent, "30m"):
        with pytest.raises(Problem) as caught:
            await world.vms.power.save(world.call(id))
        assert caught.value.code is Code.NO_SPACE
        assert (await world.get(id)).status.state is PowerState.RUNNING


@in_world
async def test_a_disk_that_fills_up_meanwhile_undoes_the_save(world: World) -> None:
    id = await counting(world)
    with small_disk(file(world, id).parent, "30m"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("thimble.vm.suspend.blockers", lambda *_: [])
        task = await world.ended(await world.vms.power.save(world.call(id)))
        assert task.problem is not None
        assert task.problem.code is Code.NO_SPACE
        vm = await world.get(id)
        assert (vm.status.state, vm.intent) == (PowerState.RUNNING, Intent.RUNNING)
        assert "not saved" in vm.status.why
        assert list(file(world, id).parent.glob("*.state*")) == []
        await goes_on_counting(world, id)
        await world.done(await world.vms.power.kill(world.call(id)))


@in_world
async def test_a_save_can_be_cancelled(world: World) -> None:
    id = await counting(world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thimble.vm.qemu.stream._UNLIMITED", 1 << 20)  # 1 MiB/s
        answer = await world.vms.power.save(world.call(id))
        await world.state(id, PowerState.SAVING)
        task = await world.tasks.cancel(answer.task.id)
    assert task.state is TaskState.CANCELLED
    vm = await world.get(id)
    assert (vm.status.state, vm.status.why) == (PowerState.RUNNING, "")
    await goes_on_counting(world, id)


@in_world
async def test_a_qemu_killed_while_it_is_saved_is_off(world: World) -> None:
    id = await counting(world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thimble.vm.qemu.stream._UNLIMITED", 1 << 20)
        answer = await world.vms.power.save(world.call(id))
        await world.state(id, PowerState.SAVING)
        await world.done(await world.vms.power.kill(world.call(id)))
        assert (await world.ended(answer)).state is TaskState.FAILED
    assert (await world.get(id)).status.state is PowerState.STOPPED
    await world.start(id)
    await world.says(id, "tiny guest: up", times=2)


@in_world
async def test_the_host_goes_down_and_each_vm_ends_as_it_says(world: World) -> None:
    kept = await counting(world, name="kept", host_shutdown=HostShutdown.SAVE)
    asked = await world.create(world.tiny("asked", autostart=Autostart(enabled=True)))
    killed = await world.create(world.tiny("killed", host_shutdown=HostShutdown.KILL))
    micro = await world.create(
        world.tiny("micro", host_shutdown=HostShutdown.SAVE, machine=Machine.MICROVM, memory_mib=96)
    )
    for id in (asked, killed, micro):
        await world.start(id)
        await world.says(id, "tiny# ")
    async with asyncio.timeout(100):
        await world.vms.stop_all(timeout=20)
    states = {row.name: (row.state, row.intent) for row in (await world.vms.read.list(world.call())).vms}
    off = (PowerState.STOPPED, Intent.RUNNING)
    assert states == {"kept": (PowerState.SAVED, Intent.RUNNING), "asked": off, "killed": off, "micro": off}
    await world.gone()
    (world.root / "run" / "vms" / ".opened").unlink()  # the host was restarted
    again = await World(world.root).open()
    await again.state(asked, PowerState.RUNNING)
    assert (await again.get(kept)).status.state is PowerState.RUNNING, "it comes first"
    assert (await again.get(killed)).status.state is PowerState.STOPPED
    await goes_on_counting(again, kept)
    await again.vms.stop_all(timeout=0, how=HostShutdown.SAVE)
    assert {row.state for row in (await again.vms.read.list(again.call())).vms if row.name != "killed"} >= {
        PowerState.SAVED
    }
    await again.gone()


@in_world
async def test_a_vm_that_cannot_go_on_does_not_keep_others_from_starting_with_the_host(world: World) -> None:
    kept = await counting(world, name="kept", host_shutdown=HostShutdown.SAVE)
    other = await world.create(world.tiny("other", autostart=Autostart(enabled=True)))
    await world.vms.stop_all(timeout=20)
    await world.gone()
    (world.root / "run" / "vms" / ".opened").unlink()
    with file(world, kept).open("r+b") as state:
        state.truncate(100_000)
    again = await World(world.root).open()
    vm = await again.get(kept)
    assert (vm.status.state, vm.status.why) == (PowerState.SAVED, "its saved state is damaged")
    assert (await again.get(other)).status.state is PowerState.RUNNING
    assert any(line.startswith("kept is saved and cannot go on") for line in again.vms.warnings())
    for pid in again.pids():
        os.kill(pid, signal.SIGKILL)
    await again.gone()
