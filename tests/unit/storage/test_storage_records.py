"""A volume has an identity of its own: it outlives the agent, a new name and the VM it was made for."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path

import msgspec
import pytest
from storage_world import World, refused, scenario

from thimble.contract.call import Call
from thimble.contract.storage import DatastoreKind, VolumeCreate
from thimble.contract.vm import DiskFormat
from thimble.core.problem import Code
from thimble.core.units import MIB
from thimble.state.store import Collection, Record, render
from thimble.storage import homes
from thimble.storage.records import DATASTORE_UPGRADES, DatastoreRecord, VolumeRecord


def files(world: World) -> list[Path]:
    return sorted((world.local / "records" / "volumes").glob("*.json"))


async def known(world: World) -> dict[tuple[str, str], Record[VolumeRecord]]:
    records = await world.storage.volumes.catalog.records("local")
    return {(record.value.vm, record.value.name): record for record in records.all()}


async def settled(world: World) -> None:
    """Every record is there that the agent makes beside all else."""
    await world.storage.settle()
    await world.storage.volumes.catalog.reconcile("local")


async def make(world: World, name: str, **more: object) -> None:
    request = VolumeCreate(name=name, **{"size_bytes": MIB, **more})  # type: ignore[arg-type]
    await world.done(await world.volume.create(Call(input=request, user="ann")))


async def disk_of_a_vm(world: World) -> Path:
    target = world.local / "vms" / "vm-00000001" / "disk0.qcow2"
    await world.storage.create_volume(
        target, size_bytes=MIB, image=None, home="local", format=DiskFormat.QCOW2
    )
    return target


@scenario
async def test_a_volume_is_made_with_its_record_and_both_outlive_the_agent(world: World) -> None:
    await make(world, "data", format=DiskFormat.RAW)
    await disk_of_a_vm(world)
    before = await known(world)
    own, disk = before["", "data"].value, before["vm-00000001", "disk0"].value
    assert (own.made_by, own.format, own.size_bytes, own.parent) == ("ann", DiskFormat.RAW, MIB, "")
    assert (disk.made_by, disk.format) == ("vm-00000001", DiskFormat.QCOW2)
    assert own.created > 0
    assert json.loads(files(world)[0].read_text())["format"] == 1
    await world.reopen()
    await settled(world)
    assert await known(world) == before


@scenario
async def test_a_volume_that_is_deleted_takes_its_record_with_it(world: World) -> None:
    await make(world, "data")
    first = (await known(world))["", "data"].id
    await world.volume.delete(Call(input=None, path={"volume": "data"}))
    assert files(world) == []
    await make(world, "data")
    assert (await known(world))["", "data"].id != first


@scenario
async def test_a_datastore_of_a_version_without_records_has_them_afterwards(world: World) -> None:
    """What an older Thimble leaves: only files."""
    await make(world, "data")
    await disk_of_a_vm(world)
    for path in files(world):
        path.unlink()
    (world.local / "records" / "volumes").rmdir()
    (world.local / "records").rmdir()
    await world.reopen()
    assert [v.name for v in (await world.volume.list(Call(input=None))).volumes] == [
        "local/data",
        "local/vm-00000001.disk0",
    ]
    await settled(world)
    found = await known(world)
    assert sorted(found) == [("", "data"), ("vm-00000001", "disk0")]
    assert {record.value.made_by for record in found.values()} == {""}
    ids = {record.id for record in found.values()}
    assert {path.stem for path in files(world)} == ids
    await world.reopen()
    await settled(world)
    assert {record.id for record in (await known(world)).values()} == ids


@scenario
async def test_a_volume_that_is_kept_when_its_vm_goes_keeps_its_identity(world: World) -> None:
    target = await disk_of_a_vm(world)
    target.write_bytes(target.read_bytes())
    id = (await known(world))["vm-00000001", "disk0"].id
    ref = await world.storage.release_volume("local", "vm-00000001", "disk0.qcow2", "web-disk0")
    assert ref == "local/web-disk0"
    await settled(world)
    found = await known(world)
    assert [(key, record.id) for key, record in found.items()] == [(("", "web-disk0"), id)]


@scenario
async def test_what_is_kept_is_kept_although_its_vm_is_forgotten_in_the_same_breath(world: World) -> None:
    await disk_of_a_vm(world)
    await world.storage.create_volume(
        world.local / "vms" / "vm-00000001" / "disk1.raw",
        size_bytes=MIB,
        image=None,
        home="local",
        format=DiskFormat.RAW,
    )
    id = (await known(world))["vm-00000001", "disk0"].id
    await world.storage.release_volume("local", "vm-00000001", "disk0.qcow2", "web-disk0")
    await world.storage.forget_volumes("local", "vm-00000001")
    assert [(key, record.id) for key, record in (await known(world)).items()] == [(("", "web-disk0"), id)]


@scenario
async def test_records_of_what_went_with_its_vm_go_too(world: World) -> None:
    target = await disk_of_a_vm(world)
    await make(world, "data")
    await settled(world)
    target.unlink()
    world.events.publish("vm.deleted", "vm-00000001")
    async with asyncio.timeout(20):
        while list(await known(world)) != [("", "data")]:
            await asyncio.sleep(0)
    assert len(files(world)) == 1


@scenario
async def test_a_volume_in_the_making_is_not_taken_for_a_lost_one(world: World) -> None:
    await world.storage.settle()
    catalog = world.storage.volumes.catalog
    with world.storage.attachments.volumes.take("local/new", "ann", "volume.create"):
        file = homes.volume_file(world.local / "volumes" / "new.raw")
        await catalog.add("local", file, MIB, made_by="ann")
        await catalog.reconcile("local")
        assert list(await known(world)) == [("", "new")]
    await catalog.reconcile("local")  # now it was cut off
    assert await known(world) == {}


@scenario
async def test_a_record_of_a_newer_version_is_left_alone(world: World) -> None:
    await make(world, "data")
    path = files(world)[0]
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    newer = path.read_text()
    await world.reopen()
    await settled(world)
    assert path.read_text() == newer
    assert len((await world.volume.list(Call(input=None))).volumes) == 1


@scenario
async def test_no_volume_without_a_record(world: World) -> None:
    """Where the record cannot be written, nothing is left of the volume either."""
    await world.storage.volumes.catalog.records("local")
    place = world.local / "records" / "volumes"
    place.rmdir()
    place.write_text("in the way")
    request = VolumeCreate(name="data", size_bytes=MIB)
    started = await world.volume.create(Call(input=request))
    task = await world.tasks.wait(started.task.id, 60)  # type: ignore[union-attr]
    assert task.problem is not None
    assert list((world.local / "volumes").iterdir()) == []
    assert (await refused(world.volume.delete(Call(input=None, path={"volume": "data"})))).code is (
        Code.NOT_FOUND
    )


def test_a_datastore_from_elsewhere_leads_nowhere(tmp_path: Path) -> None:
    """Neither is the mode of what a link leads to changed, nor anything read or written there."""
    place, victim = tmp_path / "state" / "datastores" / "local", tmp_path / "victim"
    place.mkdir(parents=True)
    victim.mkdir(mode=0o755)
    (victim / ".x.json.1.new").touch()
    for name in ("images", "records"):
        (place / name).symlink_to(victim)
    world = World(tmp_path)

    async def test() -> None:
        await settled(world)
        started = await world.volume.create(Call(input=VolumeCreate(name="data", size_bytes=MIB)))
        task = await world.tasks.wait(started.task.id, 60)  # type: ignore[union-attr]
        assert task.problem is not None

    asyncio.run(test())
    assert victim.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in victim.iterdir()] == [".x.json.1.new"]


def test_what_the_installer_writes_is_what_the_agent_reads(tmp_path: Path) -> None:
    record = DatastoreRecord(kind=DatastoreKind.DISK, device="/dev/sda3", uuid="u", default=True)
    path = homes.datastore_record(tmp_path, "data")
    path.parent.mkdir()
    path.write_bytes(render(record, format=len(DATASTORE_UPGRADES) + 1))
    records = Collection(DatastoreRecord, noun="datastore", upgrades=DATASTORE_UPGRADES)
    assert [(r.id, r.rev, r.value) for r in records.add_root("", path.parent)] == [("data", 1, record)]
    assert records.broken == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_an_image_can_be_opened_once_more_by_who_was_given_it_and_by_nobody_else(tmp_path: Path) -> None:
    """As QEMU opens a kernel: by `/proc/self/fd/N`, as a user of its own. No copy is made of it."""
    from thimble.storage.images import open_again

    base = Path(tempfile.gettempdir())
    for place in (tmp_path, *tmp_path.parents):
        if base in place.parents:  # pytest's own; another user may pass
            place.chmod(0o755)
    world = World(tmp_path)
    (world.local.parent.parent).chmod(0o755)
    asyncio.run(world.upload("kernel", b"k" * 4096))
    old = world.local / "images" / "old"
    old.write_bytes(b"o" * 4096)
    old.chmod(0o600)  # as older versions stored them
    (world.local / "images").chmod(0o711)  # as older versions made it
    assert by_another_user(str(world.local / "images" / "kernel"), os.O_RDONLY)
    for path in (world.local / "images" / "kernel", old):
        descriptor = open_again(path)
        try:
            assert os.fstat(descriptor).st_ino == path.stat().st_ino
            assert by_another_user(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
            assert not by_another_user(f"/proc/self/fd/{descriptor}", os.O_RDWR)
            assert not by_another_user(str(path), os.O_RDONLY)
        finally:
            os.close(descriptor)


def by_another_user(path: str, flags: int) -> bool:
    """Can a process of user 65534 open it?"""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            os.open(path, flags)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_volume_records_say_who_they_are(tmp_path: Path) -> None:
    """The form on disk: a field that goes or changes its meaning needs an upgrade in `VOLUME_UPGRADES`."""
    record = VolumeRecord(name="data", format=DiskFormat.QCOW2, size_bytes=MIB, created=1.5)
    assert msgspec.json.decode(msgspec.json.encode(record)) == {
        "name": "data", "vm": "", "format": "qcow2", "size_bytes": MIB, "parent": "", "made_by": "",
        "created": 1.5,
    }  # fmt: skip
