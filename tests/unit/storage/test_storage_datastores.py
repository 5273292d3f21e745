from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_world import World, refused

from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.storage import Datastore, DatastoreCreate, DatastoreKind, VolumeCreate
from thimble.contract.vm import DiskFormat
from thimble.core.problem import Code
from thimble.core.units import MIB
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.storage.datastores import Datastores
from thimble.storage.kinds.base import Surroundings

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for path in (tmp_path / "run" / "datastores").glob("*"):
        subprocess.run(["umount", "-l", str(path)], capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk.img")
    yield disk
    disk.pull()


class Disk:
    """A disk that can be plugged and pulled."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with open(file, "wb") as new:
            new.truncate(128 * MIB)
        self.device = ""
        self.plug()

    def plug(self) -> str:
        done = subprocess.run(
            ["losetup", "--find", "--show", str(self._file)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"no loop devices: {done.stderr}")
        self.device = done.stdout.strip()
        return self.device

    def pull(self) -> None:
        if self.device:
            subprocess.run(["losetup", "-d", self.device], capture_output=True)
        self.device = ""


def create(world: World, name: str, kind: DatastoreKind, *, dry_run: bool = False, **more: object) -> object:
    request = DatastoreCreate(name=name, kind=kind, **more)  # type: ignore[arg-type]
    return asyncio.run(_result(world, Call(input=request, dry_run=dry_run)))


async def _result(world: World, call: Call[DatastoreCreate]) -> object:
    from thimble.core.problem import Problem

    try:
        return await world.datastore.create(call)
    except Problem as error:
        return error


def listed(world: World) -> dict[str, Datastore]:
    answer = asyncio.run(world.datastore.list(Call(input=None)))
    return {store.name: store for store in answer.datastores}


def code(answer: object) -> Code:
    return answer.code  # type: ignore[attr-defined, no-any-return]


def test_there_is_always_a_local_one(world: World) -> None:
    local = listed(world)["local"]
    assert (local.mounted, local.default, local.free_bytes > 0) == (True, True, True)
    error = asyncio.run(refused(world.datastore.delete(Call(input=None, path={"datastore": "local"}))))
    assert error.code is Code.CONFLICT


def test_a_small_state_partition_keeps_no_disks_of_guests(tmp_path: Path, disk: Disk) -> None:
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mkfs.ext4", "-q", disk.device], check=True)
    subprocess.run(["mount", disk.device, str(state)], check=True)
    try:
        world = World(tmp_path)
        local = listed(world)["local"]
        assert (local.kind, local.durable, local.mounted) == (DatastoreKind.RAM, False, True)
        assert any("local is in RAM" in line for line in world.storage.warnings())
        assert not (state / "datastores").exists()
        world.restart()
        assert listed(world)["local"].kind is DatastoreKind.RAM
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "run/datastores/local")], capture_output=True)
        subprocess.run(["umount", "-l", str(state)], capture_output=True)


def test_a_directory_becomes_a_datastore_and_survives_a_restart(world: World) -> None:
    place = world.directory / "data"
    place.mkdir()
    assert isinstance(create(world, "big", DatastoreKind.DIRECTORY, path=str(place)), Datastore)
    world.restart()
    assert listed(world)["big"].where == str(place)
    assert world.storage.homes()["big"] == place / "vms"
    place.rename(world.directory / "moved")
    world.restart()
    missing = listed(world)["big"]
    assert not missing.mounted
    assert "is missing" in missing.why
    assert sorted(world.storage.homes()) == ["local"]
    (world.directory / "moved").rename(place)
    assert listed(world)["big"].mounted


def test_impossible_datastores_are_refused(world: World) -> None:
    kind = DatastoreKind
    assert code(create(world, "local", kind.RAM, size_bytes=8 * MIB)) is Code.EXISTS
    assert code(create(world, "x", kind.DIRECTORY, path="/nonexistent")) is Code.NOT_FOUND
    assert code(create(world, "x", kind.DIRECTORY, path="relative")) is Code.INVALID
    assert code(create(world, "x", kind.DIRECTORY)) is Code.INVALID
    assert code(create(world, "x", kind.DIRECTORY, path=str(world.local / "vms"))) is Code.IN_USE
    assert code(create(world, "x", kind.DIRECTORY, path="/")) is Code.IN_USE
    assert code(create(world, "x", kind.RAM)) is Code.INVALID
    assert code(create(world, "x", kind.RAM, size_bytes=1 << 60)) is Code.NO_MEMORY
    assert code(create(world, "x", kind.DISK, device="/etc/passwd")) is Code.INVALID
    assert code(create(world, "x", kind.DISK, device="/dev/null")) is Code.NOT_FOUND
    assert code(create(world, "x", kind.RAM, size_bytes=8 * MIB, erase=True)) is Code.INVALID
    assert code(create(world, "../x", kind.RAM, size_bytes=8 * MIB)) is Code.INVALID
    assert sorted(listed(world)) == ["local"]


def test_ram_is_bounded_says_that_it_forgets_and_survives_the_agent(world: World) -> None:
    dry = create(world, "fast", DatastoreKind.RAM, size_bytes=32 * MIB, dry_run=True)
    assert isinstance(dry, DryRun)
    assert "lost" in dry.warnings[0]
    assert sorted(listed(world)) == ["local"]
    made = create(world, "fast", DatastoreKind.RAM, size_bytes=32 * MIB)
    assert isinstance(made, Datastore)
    assert (made.durable, made.size_bytes) == (False, 32 * MIB)
    (world.storage.homes()["fast"] / "here").touch()
    world.restart()
    assert (world.storage.homes()["fast"] / "here").exists()


def test_a_full_datastore_refuses_and_what_fails_midway_leaves_nothing(world: World) -> None:
    create(world, "fast", DatastoreKind.RAM, size_bytes=24 * MIB)

    async def scenario() -> None:
        await world.upload("base", os.urandom(20 * MIB))
        request = VolumeCreate(name="v", datastore="fast", image="local/base")
        error = await refused(world.volume.create(Call(input=request)))
        assert error.code is Code.NO_SPACE
        image = world.storage.resolve_image("base", "local")
        from thimble.storage import rules, volumes

        volumes.RESERVE = -(1 << 40)  # as if the room had been there when looked at
        try:
            await copy(world, "first.raw", image.ref)
            error = await refused(copy(world, "second.raw", image.ref))
        finally:
            volumes.RESERVE = rules.RESERVE
        assert error.code is Code.NO_SPACE, error.detail

    asyncio.run(scenario())
    assert [p.name for p in (world.storage.homes()["fast"] / "vm-1").iterdir()] == ["first.raw"]


async def copy(world: World, name: str, image: str) -> int:
    target = world.storage.homes()["fast"] / "vm-1" / name
    return await world.storage.create_volume(
        target, size_bytes=None, image=image, home="", format=DiskFormat.RAW
    )


def test_a_disk_is_formatted_only_when_asked_and_never_over_data(world: World, disk: Disk) -> None:
    kind = DatastoreKind.DISK
    blank = create(world, "d", kind, device=disk.device)
    assert code(blank) is Code.CONFLICT
    with open(disk.device, "r+b") as raw:
        raw.seek(700_000)
        raw.write(b"something of somebody")
    assert code(create(world, "d", kind, device=disk.device, format=True)) is Code.CONFLICT
    dry = create(world, "d", kind, device=disk.device, format=True, erase=True, dry_run=True)
    assert isinstance(dry, DryRun)
    assert "losing what is on it (unknown data)" in dry.effects[0].what
    made = create(world, "d", kind, device=disk.device, format=True, erase=True)
    assert isinstance(made, Datastore), made
    assert made.mounted
    assert made.durable
    again = create(world, "e", kind, device=disk.device, format=True, erase=True)
    assert code(again) is Code.IN_USE


def test_a_missing_disk_is_told_and_taken_back_under_another_name(world: World, disk: Disk) -> None:
    create(world, "d", DatastoreKind.DISK, device=disk.device, format=True)
    (world.storage.homes()["d"] / "vm-1").mkdir()
    (world.storage.homes()["d"] / "vm-1" / "vm.json").touch()
    subprocess.run(["umount", str(world.directory / "run" / "datastores" / "d")], check=True)
    disk.pull()
    world.restart()
    store = listed(world)["d"]
    assert not store.mounted
    assert "is missing" in store.why
    assert "d" not in world.storage.homes()
    subprocess.run(["losetup", "--find"], check=True, capture_output=True)
    disk.plug()
    assert listed(world)["d"].mounted
    assert (world.storage.homes()["d"] / "vm-1").is_dir()


def test_a_disk_that_comes_back_is_noticed_by_itself(world: World, disk: Disk) -> None:
    create(world, "d", DatastoreKind.DISK, device=disk.device, format=True)
    subprocess.run(["umount", str(world.directory / "run" / "datastores" / "d")], check=True)
    disk.pull()

    async def scenario() -> None:
        events = Events(base=1, clock=time.time)
        around = Surroundings(state=world.directory / "state", mounts=world.directory / "run" / "datastores")
        background = Background()
        datastores = Datastores(around, events, background)
        await datastores.open()
        assert sorted(datastores.mounted()) == ["local"]
        disk.plug()
        async with asyncio.timeout(20):
            async for batch in events.follow(1):
                if any(event.subject == "d" and event.detail["mounted"] == "true" for event in batch):
                    break
        assert sorted(datastores.mounted()) == ["d", "local"]
        datastores.arrivals.close()
        await background.close()

    asyncio.run(scenario())


def test_a_forgotten_disk_is_adopted_by_its_label(world: World, disk: Disk) -> None:
    create(world, "d", DatastoreKind.DISK, device=disk.device, format=True)
    vm = world.storage.homes()["d"] / "vm-1"
    vm.mkdir()
    delete = Call(input=None, path={"datastore": "d"})
    assert asyncio.run(refused(world.datastore.delete(delete))).code is Code.IN_USE
    vm.rename(vm.parent.parent / "images" / "vm-1")
    asyncio.run(world.datastore.delete(delete))
    assert sorted(listed(world)) == ["local"]
    again = create(world, "other", DatastoreKind.DISK, device=disk.device)
    assert isinstance(again, Datastore), again
    assert (world.storage.homes()["other"].parent / "images" / "vm-1").is_dir()


def test_the_state_partition_is_never_touched(world: World, disk: Disk) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-L", "thimble-state", disk.device], check=True)
    for more in ({}, {"format": True}, {"format": True, "erase": True}):
        assert code(create(world, "d", DatastoreKind.DISK, device=disk.device, **more)) is Code.IN_USE


def test_a_changed_revision_is_noticed(world: World) -> None:
    create(world, "fast", DatastoreKind.RAM, size_bytes=8 * MIB)
    stale = Call(input=None, path={"datastore": "fast"}, if_match=7)
    assert asyncio.run(refused(world.datastore.delete(stale))).code is Code.STALE
    asyncio.run(world.datastore.delete(Call(input=None, path={"datastore": "fast"}, if_match=1)))
    assert sorted(listed(world)) == ["local"]
