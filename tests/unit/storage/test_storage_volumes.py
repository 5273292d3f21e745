from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from storage_world import World, refused, scenario

from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.storage import VolumeCreate
from thimble.contract.vm import DiskFormat, DiskSpec
from thimble.core.problem import Code, Problem
from thimble.core.units import GIB, MIB, TIB

DISK = "$.disks[0]"


def create(name: str, **more: object) -> Call[VolumeCreate]:
    dry = bool(more.pop("dry_run", False))
    return Call(input=VolumeCreate(name=name, **more), dry_run=dry)  # type: ignore[arg-type]


def named(name: str) -> Call[None]:
    return Call(input=None, path={"volume": name})


@scenario
async def test_an_empty_volume_of_either_format_has_its_size_and_takes_no_space(world: World) -> None:
    for format in DiskFormat:
        await world.done(await world.volume.create(create(f"v-{format}", size_bytes=GIB, format=format)))
    volumes = (await world.volume.list(Call(input=None))).volumes
    assert {(v.name, v.size_bytes, v.format) for v in volumes} == {
        ("local/v-qcow2", GIB, DiskFormat.QCOW2),
        ("local/v-raw", GIB, DiskFormat.RAW),
    }
    assert all(volume.used_bytes < MIB for volume in volumes)
    assert world.leftovers() == []


@scenario
async def test_a_copy_of_an_image_is_grown_and_has_its_content(world: World) -> None:
    data = os.urandom(2 * MIB)
    await world.upload("base", data)
    for format in DiskFormat:
        seen: list[float] = []
        target = world.local / "vms" / "vm-00000001" / f"disk0.{format}"
        size = await world.storage.create_volume(
            target, size_bytes=16 * MIB, image="base", home="local", format=format, progress=seen.append
        )
        assert size == 16 * MIB
        assert seen[-1] == 1.0
        assert seen == sorted(seen)
        raw = world.directory / "out.raw"
        subprocess.run(["qemu-img", "convert", "-f", format, "-O", "raw", str(target), str(raw)], check=True)
        assert raw.read_bytes() == data + bytes(14 * MIB)


@scenario
async def test_making_a_disk_again_leaves_it_as_it_is(world: World) -> None:
    target = world.local / "vms" / "vm-00000001" / "disk0.raw"
    for size in (4 * MIB, 8 * MIB):
        made = await world.storage.create_volume(
            target, size_bytes=size, image=None, home="local", format=DiskFormat.RAW
        )
        assert made == 4 * MIB


@scenario
async def test_volumes_are_found_by_all_their_names(world: World) -> None:
    await world.done(await world.volume.create(create("data", size_bytes=MIB)))
    inside = world.local / "vms" / "vm-00000001" / "disk0.qcow2"
    await world.storage.create_volume(
        inside, size_bytes=MIB, image=None, home="local", format=DiskFormat.QCOW2
    )
    resolve = world.storage.resolve_volume
    assert resolve("data", "local").path == resolve("local/data", "").path
    assert resolve("local/vm-00000001.disk0", "").path == inside
    for ref in ("local/nope", "../state", "local/../../x", "local/vm-00000001.../disk0", "local/.data"):
        with pytest.raises(Problem) as error:
            resolve(ref, "local")
        assert error.value.code is Code.NOT_FOUND
    with pytest.raises(Problem):
        resolve("elsewhere/data", "local")


@scenario
async def test_impossible_volumes_are_refused_with_all_reasons(world: World) -> None:
    error = await refused(world.volume.create(create("../x", size_bytes=1000, image="none")))
    assert {reason.path for reason in error.reasons} == {"$.name", "$.size_bytes", "$.image"}
    assert (await refused(world.volume.create(create("vm-1.disk0", size_bytes=512)))).code is Code.INVALID
    assert (await refused(world.volume.create(create("x")))).code is Code.INVALID
    assert (await refused(world.volume.create(create("x", size_bytes=65 * TIB)))).code is Code.INVALID
    await world.done(await world.volume.create(create("x", size_bytes=512)))
    assert (await refused(world.volume.create(create("x", size_bytes=512)))).code is Code.EXISTS
    raw = create("x", size_bytes=512, format=DiskFormat.RAW)
    assert (await refused(world.volume.create(raw))).code is Code.EXISTS


@scenario
async def test_a_volume_smaller_than_its_image_is_refused(world: World) -> None:
    await world.upload("base", bytes(2 * MIB))
    error = await refused(world.volume.create(create("x", image="base", size_bytes=MIB)))
    assert error.reasons[0].path == "$.size_bytes"


@scenario
async def test_a_dry_run_tells_what_would_happen_and_warns_of_overcommitment(world: World) -> None:
    answer = await world.volume.create(create("big", size_bytes=60 * TIB, dry_run=True))
    assert isinstance(answer, DryRun)
    assert answer.possible
    assert answer.effects[0].what == "creates volume local/big (60 TiB)"
    assert "may grow to 60 TiB" in answer.warnings[0]
    await world.done(await world.volume.create(create("first", size_bytes=40 * TIB)))
    small = await world.volume.create(create("small", size_bytes=MIB, dry_run=True))
    assert "the volumes there by 40" in small.warnings[0]  # type: ignore[union-attr]
    assert len((await world.volume.list(Call(input=None))).volumes) == 1


@scenario
async def test_a_used_volume_is_neither_deleted_nor_given_twice(world: World) -> None:
    await world.done(await world.volume.create(create("data", size_bytes=MIB)))
    world.ports.volume_users = lambda: {"local/data": "vm-1"}
    assert (await refused(world.volume.delete(named("data")))).code is Code.IN_USE
    spec = DiskSpec(volume="data")
    assert world.storage.check_disk(spec, "local", DISK)[0].code is Code.IN_USE
    assert world.storage.check_disk(spec, "local", DISK, vm="vm-1") == []
    world.ports.volume_users = dict
    await world.volume.delete(named("local/data"))
    assert (await refused(world.volume.delete(named("data")))).code is Code.NOT_FOUND


@scenario
async def test_disks_of_a_vm_are_checked_without_making_anything(world: World) -> None:
    check = world.storage.check_disk
    assert check(DiskSpec(size_bytes=GIB), "", DISK) == []
    assert check(DiskSpec(), "local", DISK)[0].path == f"{DISK}.size_bytes"
    assert check(DiskSpec(size_bytes=GIB), "nowhere", DISK)[0].code is Code.NOT_FOUND
    both = check(DiskSpec(volume="none", size_bytes=GIB), "local", DISK)
    assert {reason.path for reason in both} == {f"{DISK}.size_bytes", f"{DISK}.volume"}
    assert "may grow" in world.storage.disk_warnings(DiskSpec(size_bytes=60 * TIB), "", "disk0")[0]


@scenario
async def test_a_copy_that_is_cancelled_leaves_nothing(world: World) -> None:
    await world.upload("base", os.urandom(40 * MIB))
    started = await world.volume.create(create("copy", image="base"))
    task = started.task  # type: ignore[union-attr]
    while not world.leftovers():
        await asyncio.sleep(0)
    ended = await world.tasks.cancel(task.id)
    assert ended.state == "cancelled"
    assert world.leftovers() == []
    assert list((world.local / "volumes").iterdir()) == []


@scenario
async def test_a_failing_qemu_img_leaves_nothing_and_says_why(world: World) -> None:
    await world.upload("base", bytes(MIB))
    path = world.local / "images" / "base.json"
    path.write_text(path.read_text().replace('"raw"', '"qcow2"'))
    damaged = b"QFI\xfb\0\0\0\3".ljust(MIB, b"\0")  # nothing but the beginning of a header
    (world.local / "images" / "base").write_bytes(damaged)
    started = await world.volume.create(create("copy", image="base"))
    task = await world.tasks.wait(started.task.id, 30)  # type: ignore[union-attr]
    assert task.problem is not None
    assert task.problem.code is Code.FAILED
    assert "qemu-img" in task.problem.detail
    assert world.leftovers() == []


def test_what_an_interrupted_copy_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    world = World(tmp_path)
    left = [world.local / "volumes" / ".a.qcow2.new", world.local / "images" / ".b.new"]
    left.append(world.local / "vms" / "vm-00000001" / ".disk0.raw.new")
    left[2].parent.mkdir()
    for path in left:
        path.write_bytes(b"half")
    (world.local / "volumes" / "whole.raw").write_bytes(bytes(512))
    world.restart()
    assert world.leftovers() == []
    assert world.storage.resolve_volume("whole", "").size_bytes == 512


@scenario
async def test_what_a_symbolic_link_leads_to_is_no_volume(world: World) -> None:
    secret = world.directory / "secret"
    secret.mkdir()
    (secret / "disk0.raw").write_bytes(b"s" * 512)
    (world.local / "volumes" / "linked.raw").symlink_to(secret / "disk0.raw")
    (world.local / "vms" / "vm-1").symlink_to(secret)
    for name in ("linked", "vm-1.disk0"):
        with pytest.raises(Problem) as found:
            world.storage.resolve_volume(name, "local")
        assert found.value.code is Code.NOT_FOUND
    assert await world.storage.volumes.all() == []
