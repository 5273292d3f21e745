"""What becomes of volumes, records and the status when something is in the way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from vm_examples import definition
from vm_table_world import TableWorld, context, ready

from thimble.contract.vm import CrashPolicy, DiskFormat, Intent, PowerState
from thimble.core.problem import Code, Problem
from thimble.storage import homes, volume_files
from thimble.storage.homes import Home
from thimble.vm import provision
from thimble.vm.qemu.descriptors import LaunchFds
from thimble.vm.qemu.launch_fds import Source, open_disk
from thimble.vm.qemu.rundir import RunDir
from thimble.vm.record.lifecycle import Ending
from thimble.vm.record.spec import Definition, Disk
from thimble.vm.startup import Startup
from thimble.vm.table import VmTable


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0)


def example(**more: object) -> Definition:
    return msgspec.structs.replace(definition("web"), **more)


def source_in(store: Path) -> Source:
    directory = store / "vms" / "vm-1"
    directory.mkdir(parents=True, exist_ok=True)
    home = Home(store)

    async def release(_home: str, vm: str, file: str, stem: str) -> str:
        return volume_files.release(home, homes.volume_file(home.vm(vm) / file), stem)

    storage = SimpleNamespace(homes=lambda: {"local": home.vms}, release_volume=release)
    return Source(cast(Any, storage), cast(Any, None), "vm-1", "local")


def test_a_kept_volume_never_takes_the_place_of_another(tmp_path: Path) -> None:
    source, disk = source_in(tmp_path), Disk(name="data", format=DiskFormat.RAW)
    names = set()
    for content in ("one", "two", "three", "four"):
        (source.directory / "data.raw").write_text(content)
        names.add(asyncio.run(provision.release_volume(source, example(), disk)))
    assert len(names) == 4
    kept = sorted(path.read_text() for path in (tmp_path / "volumes").iterdir())
    assert kept == ["four", "one", "three", "two"]


def test_disks_that_the_record_does_not_know_are_found(tmp_path: Path) -> None:
    source = source_in(tmp_path)
    for name in ("disk0.qcow2", "lost.raw", ".x.raw.new", "efivars.fd", "vm.json"):
        (source.directory / name).touch()
    found = provision.stray_disks(source, example(disks=(Disk(name="disk0"),)))
    assert [disk.file for disk in found] == ["lost.raw"]


@pytest.mark.parametrize(("at", "word"), [(15, "backing file"), (79, "external data file")])
def test_a_disk_that_refers_to_another_file_is_not_opened(tmp_path: Path, at: int, word: str) -> None:
    source, disk = source_in(tmp_path), Disk(name="disk0")
    header = bytearray(b"QFI\xfb\0\0\0\3" + bytes(96))
    (source.directory / "disk0.qcow2").write_bytes(header)
    with LaunchFds() as things:
        open_disk(things, source, disk)
        assert "disk-disk0" in things.fds
    header[at] = 4
    (source.directory / "disk0.qcow2").write_bytes(header)
    with LaunchFds() as things, pytest.raises(Problem, match=word):
        open_disk(things, source, disk)


def test_only_a_plain_file_is_opened_as_a_disk(tmp_path: Path) -> None:
    source, disk = source_in(tmp_path), Disk(name="disk0", format=DiskFormat.RAW)
    path = source.directory / "disk0.raw"
    (tmp_path / "secret").touch()
    path.symlink_to(tmp_path / "secret")
    with LaunchFds() as things, pytest.raises(Problem, match="not a plain file"):
        open_disk(things, source, disk)
    path.unlink()
    os.mkfifo(path)  # opened blindly, it would wait for a writer for ever
    with LaunchFds() as things, pytest.raises(Problem, match="not a plain file"):
        open_disk(things, source, disk)
    path.unlink()
    path.write_bytes(b"content")
    with LaunchFds() as things:
        open_disk(things, source, disk)
        assert os.pread(things.fds["disk-disk0"], 7, 0) == b"content"


def test_a_datastore_that_comes_again_elsewhere_has_its_records_there(tmp_path: Path) -> None:
    async def story() -> None:
        homes = {"local": tmp_path / "vms", "data": tmp_path / "old"}
        world = TableWorld(tmp_path, PowerState.STOPPED, ready())
        world.context.storage.homes = lambda: homes  # type: ignore[method-assign]
        startup = Startup(world.table, *(cast(Any, None),) * 3)
        startup._look_at_datastores()
        await until(lambda: "data" in world.table.roots)
        del homes["data"]
        startup._look_at_datastores()
        assert "data" not in world.table.roots
        homes["data"] = tmp_path / "new"
        startup._look_at_datastores()
        await until(lambda: "data" in world.table.roots)
        assert world.table.directory("vm-2", "data") == tmp_path / "new" / "vm-2"

    asyncio.run(story())


def test_the_disks_of_a_vm_that_cannot_be_read_are_not_free(tmp_path: Path) -> None:
    directory = tmp_path / "vms" / "vm-1"
    directory.mkdir(parents=True)
    (directory / "vm.json").write_text('{"format": 99, "rev": 1, "record": {}}')
    (directory / "disk0.qcow2").touch()
    table = VmTable(context(tmp_path), durable=False)
    table.take("local", tmp_path / "vms")
    assert table.volume_users()["local/vm-1.disk0"] == "vm-1"


def test_a_guest_that_went_off_is_off_though_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise Problem(Code.NO_SPACE, "the disk is full")

    async def story() -> None:
        world = TableWorld(tmp_path, PowerState.RUNNING, ready(intent=Intent.RUNNING))
        monkeypatch.setattr(world.table, "intend", full)
        await world.driver.monitor._concluded(Ending.GUEST, "")
        assert world.driver.status.state is PowerState.STOPPED
        assert world.driver.off.is_set()

    asyncio.run(story())


@pytest.mark.parametrize("state", [PowerState.CRASHED, PowerState.FAILED])
def test_a_restart_that_was_refused_is_tried_again(tmp_path: Path, state: PowerState) -> None:
    async def scenario() -> None:
        value = ready(intent=Intent.RUNNING, on_crash=CrashPolicy.RESTART)
        driver = TableWorld(tmp_path, state, value).driver
        await driver.restart_failed("no memory")
        assert driver.monitor._again is not None
        assert driver.status.state is state
        assert "tries again" in driver.status.why
        await driver.close()

    asyncio.run(scenario())


def test_a_torn_file_of_the_run_directory_is_none(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path, "vm-1")
    rundir.directory.mkdir(parents=True)
    for torn in (b"", b'{"pid": 7', b"\xff\xfe", b"[]"):
        rundir.process.write_bytes(torn)
        rundir.running.write_bytes(torn)
        assert rundir.identity() is None
        assert rundir.was() is None
