"""The verbs around QEMU: refusals, dry runs, idempotency, users, restarts of the host."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from vm_world import FIRST_LINE, World, in_world, needs_root

from thimble.contract.common import DryRun, TaskState
from thimble.contract.vm import (
    Autostart,
    CrashPolicy,
    DeleteRequest,
    DiskSpec,
    Intent,
    PowerState,
    SeedSpec,
    StopRequest,
    VmChange,
    VmCreate,
)
from thimble.core.problem import Code, Problem
from thimble.core.units import GIB, MIB
from thimble.image import toolbox
from thimble.vm.qemu.programs import QemuPaths


@in_world
async def test_a_bad_spec_is_refused_with_every_reason_and_leaves_nothing(world: World) -> None:
    await world.create(VmCreate(name="web1"))
    bad = VmCreate(name="web1", vcpus=255, disks=(DiskSpec(image="none"),), cpu="abacus")
    with pytest.raises(Problem) as caught:
        await world.vms.create.create(world.call(input=bad))
    paths = {reason.path for reason in caught.value.reasons}
    assert paths == {"$.name", "$.vcpus", "$.disks[0].image", "$.cpu"}
    assert len((await world.vms.read.list(world.call())).vms) == 1


@in_world
async def test_a_dry_run_tells_effects_and_blockers_and_does_nothing(world: World) -> None:
    good = await world.vms.create.create(
        world.call(input=VmCreate(name="a", disks=(DiskSpec(size_bytes=GIB),)), dry_run=True)
    )
    assert isinstance(good, DryRun)
    assert [effect.what for effect in good.effects] == [
        "creates VM a on local",
        "creates volume disk0 (1 GiB)",
    ]
    assert good.possible
    assert "TCG" in good.warnings[-1]
    bad = await world.vms.create.create(world.call(input=VmCreate(name="A!", vcpus=255), dry_run=True))
    assert isinstance(bad, DryRun)
    assert (bad.possible, len(bad.blockers)) == (False, 2)
    assert (await world.vms.read.list(world.call())).vms == ()


@in_world
async def test_the_same_key_gives_the_same_vm_even_after_a_restart(world: World) -> None:
    spec = VmCreate(name="web1")
    first = await world.vms.create.create(world.call(input=spec, key="k1"))
    await world.done(first)
    again = await world.vms.create.create(world.call(input=spec, key="k1"))
    assert again == msgspec.structs.replace(first, task=world.tasks.get(first.task.id))  # type: ignore[union-attr,type-var]
    await world.gone()
    later = await World(world.root).open()
    answer = await later.vms.create.create(later.call(input=spec, key="k1"))
    assert (answer.subject, answer.task.state) == (first.subject, TaskState.DONE)  # type: ignore[union-attr]
    with pytest.raises(Problem, match="another request"):
        await later.vms.create.create(later.call(input=VmCreate(name="web2"), key="k1"))


@in_world
async def test_a_key_is_its_users_alone(world: World) -> None:
    mine = await world.vms.create.create(world.call(input=VmCreate(name="mine"), key="k1"))
    call = msgspec.structs.replace(world.call(input=VmCreate(name="yours"), key="k1"), user="somebody")
    yours = await world.vms.create.create(call)
    assert mine.subject != yours.subject  # type: ignore[union-attr]
    assert [(await world.done(one)).result for one in (mine, yours)]


@in_world
async def test_a_cancelled_create_never_was(world: World) -> None:
    started = await world.vms.create.create(
        world.call(input=VmCreate(name="web1", disks=(DiskSpec(size_bytes=GIB),)))
    )
    task = await world.tasks.cancel(started.task.id)  # type: ignore[union-attr]
    assert task.state is TaskState.CANCELLED
    assert (await world.vms.read.list(world.call())).vms == ()
    assert list((world.root / "state/datastores/local/vms").iterdir()) == []


@in_world
async def test_a_vm_is_found_by_name_and_a_stale_revision_is_told(world: World) -> None:
    id = await world.create(VmCreate(name="web1"))
    vm = await world.get("web1")
    assert vm.id == id
    change = VmChange(description="new")
    await world.done(await world.vms.reconfigure.change(world.call("web1", change, if_match=vm.rev)))
    with pytest.raises(Problem) as caught:
        await world.vms.reconfigure.change(world.call("web1", change, if_match=vm.rev))
    assert caught.value.code is Code.STALE
    with pytest.raises(Problem, match="no VM 'web2'"):
        await world.get("web2")


@in_world
async def test_more_memory_than_there_is_is_refused_at_start(world: World) -> None:
    id = await world.create(VmCreate(name="web1"))
    total, _ = world.vms.context.memory()
    world.vms.context.memory = lambda: (total, 100 * MIB)
    with pytest.raises(Problem) as caught:
        await world.vms.power.start(world.call(id))
    assert caught.value.code is Code.NO_MEMORY
    assert (await world.get(id)).intent is Intent.STOPPED


@in_world
async def test_a_qemu_that_refuses_is_quoted_and_leaves_nothing(world: World) -> None:
    id = await world.create(world.tiny())
    world.vms.context.qemu = msgspec.structs.replace(world.vms.context.qemu, share=("/nowhere",))
    original = world.vms.context.qemu.program
    broken = world.root / "qemu"
    broken.write_text(f"#!/bin/sh\nexec {original} -nonsense\n")
    broken.chmod(0o755)
    world.vms.context.qemu = msgspec.structs.replace(world.vms.context.qemu, program=str(broken))
    task = await world.ended(await world.vms.power.start(world.call(id)))
    assert task.problem is not None
    assert "nonsense: invalid option" in task.problem.detail
    vm = await world.get(id)
    assert (vm.status.state, vm.intent) == (PowerState.FAILED, Intent.STOPPED)
    assert "invalid option" in vm.status.why
    assert sorted(path.name for path in (world.root / "run/vms" / id).iterdir()) == ["qemu.log", "serial.log"]
    assert "start" in vm.allowed


@in_world
async def test_the_host_restarts_and_only_autostart_starts(world: World) -> None:
    first = await world.create(world.tiny("b-late", autostart=Autostart(enabled=True, order=2)))
    second = await world.create(world.tiny("a-early", autostart=Autostart(enabled=True, order=1)))
    third = await world.create(world.tiny("manual"))
    await world.start(third)
    world.kill_all()
    await world.gone()
    for path in sorted((world.root / "run").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    again = await World(world.root).open()
    vm = await again.get(third)
    assert (vm.status.state, vm.status.why, vm.intent) == (
        PowerState.STOPPED,
        "the host was restarted",
        Intent.RUNNING,
    )
    order = [task.subject for task in reversed(again.tasks.all()) if task.verb == "vm.start"]
    assert order == [second, first]
    assert (await again.get(first)).status.state is PowerState.RUNNING
    await again.vms.stop_all(timeout=0)
    vm = await again.get(first)
    assert (vm.status.state, vm.intent) == (PowerState.STOPPED, Intent.RUNNING)
    await again.gone()


@in_world
async def test_a_qemu_that_died_while_the_agent_was_away_is_told(world: World) -> None:
    id = await world.create(world.tiny(on_crash=CrashPolicy.STOP))
    await world.start(id)
    await world.says(id, "tiny# ")  # so the first line is in the log, which QEMU writes after its socket
    await world.gone()
    pid = world.pids()[0]
    world.kill_all()
    while Path(f"/proc/{pid}/fd").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        pass
    again = await World(world.root).open()
    vm = await again.get(id)
    assert (vm.status.state, vm.status.why) == (
        PowerState.CRASHED,
        "QEMU died while the agent was not running",
    )
    assert FIRST_LINE in vm.status.last_output


@in_world
async def test_pause_resume_reset_and_kill(world: World) -> None:
    id = await world.create(world.tiny())
    await world.start(id)
    await world.says(id, FIRST_LINE)
    await world.done(await world.vms.power.pause(world.call(id)))
    vm = await world.get(id)
    assert vm.status.state is PowerState.PAUSED
    assert "resume" in vm.allowed
    with pytest.raises(Problem, match="resume it first"):
        await world.vms.power.start(world.call(id))
    await world.done(await world.vms.power.resume(world.call(id)))
    assert (await world.get(id)).status.state is PowerState.RUNNING
    await world.done(await world.vms.power.reset(world.call(id)))
    await world.says(id, FIRST_LINE, times=2)
    with pytest.raises(Problem, match="stop it first"):
        await world.vms.reconfigure.delete(world.call(id, DeleteRequest()))
    task = await world.done(await world.vms.power.stop(world.call(id, StopRequest(timeout_s=0, force=True))))
    assert "killed" in task.result["note"]
    note = await world.done(await world.vms.power.stop(world.call(id, StopRequest())))
    assert note.result == {"note": "it is stopped"}


@in_world
async def test_volumes_can_outlive_their_vm(world: World) -> None:
    id = await world.create(VmCreate(name="web1", disks=(DiskSpec(size_bytes=MIB),)))
    await world.done(await world.vms.reconfigure.delete(world.call(id, DeleteRequest(keep_volumes=True))))
    assert world.storage.resolve_volume("local/web1-disk0", "local").size_bytes == MIB
    assert list((world.root / "state/datastores/local/vms").iterdir()) == []


@pytest.fixture
def open_to_all() -> Iterator[QemuPaths]:
    """The toolbox's QEMU, by a path that every user may go."""
    where = Path(tempfile.mkdtemp(prefix="thimble-qemu-"))
    where.chmod(0o755)
    (where / "tree").mkdir()
    box = replace(toolbox.ensure(lambda *_: None), tree=where / "tree")
    subprocess.run(["mount", "--bind", toolbox.ensure().tree, box.tree], check=True)
    try:
        toolbox.write_wrappers(box)
        yield QemuPaths.under(box.wrappers, box.path("usr/share"))
    finally:
        subprocess.run(["umount", box.tree], check=True)
        shutil.rmtree(where)


@needs_root
def test_qemu_runs_as_its_own_user_in_a_sandbox_and_a_group(tmp_path: Path, open_to_all: QemuPaths) -> None:
    @in_world
    async def test(plain: World) -> None:
        world = World(tmp_path / "own", qemu=open_to_all)
        await world.open()
        assert world.vms.context.own_users
        seed = SeedSpec(ssh_keys=("ssh-ed25519 AAAA me",))
        id = await world.create(world.tiny(disks=(DiskSpec(size_bytes=MIB),), seed=seed))
        await world.start(id)
        await world.says(id, FIRST_LINE)
        pid = world.pids()[0]
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["Uid"].split() == ["100000"] * 4
        assert status["Seccomp"].strip() == "2"
        assert status["CapEff"].strip("0\n ") == ""
        if world.vms.context.cgroups:
            assert f"/{id}" in Path(f"/proc/{pid}/cgroup").read_text()
        home = tmp_path / "own/state/datastores/local/vms" / id
        assert (home.stat().st_gid, home.stat().st_mode & 0o777) == (100000, 0o750)
        assert (home / "vm.json").stat().st_mode & 0o777 == 0o600
        assert b"AAAA" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        await world.done(await world.vms.power.kill(world.call(id)))
        await world.gone()

    test(tmp_path)


@in_world
async def test_two_hundred_vms_are_listed(world: World) -> None:
    for n in range(200):
        await world.vms.create.create(world.call(input=VmCreate(name=f"vm{n}")))
    for task in world.tasks.all():
        await world.tasks.wait(task.id, 60)
    text = msgspec.json.encode(await world.vms.read.list(world.call()))
    assert text.count(b'"state":"stopped"') == 200
