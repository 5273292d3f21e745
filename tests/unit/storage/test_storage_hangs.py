"""A disk that hangs holds up nothing but its own datastore."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from storage_world import World, refused, scenario

from thimble.contract.call import Call
from thimble.contract.storage import Datastore, DatastoreCreate, DatastoreKind, VolumeCreate
from thimble.core.decision import GO, Decision
from thimble.core.problem import Code
from thimble.core.units import MIB
from thimble.storage import arrivals, datastores, deadline, disks, kinds, mounted, service
from thimble.storage.headers import Headers
from thimble.storage.homes import Home
from thimble.storage.kinds.base import Kind, Surroundings
from thimble.storage.records import DatastoreRecord
from thimble.sys import block


class Hanging(Kind):
    """A kind whose disk answers only when the test says so: `hangs` names what does not."""

    needs = "device"
    goes = True
    hangs: ClassVar[set[str]] = set()
    answers = threading.Event()

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self.place = around.state.parent / "disk"

    @classmethod
    def wait(cls, what: str) -> None:
        assert threading.current_thread() is not threading.main_thread(), f"{what} holds up the loop"
        if what in cls.hangs:
            assert cls.answers.wait(60)

    def look(self, _request: DatastoreCreate, _others: Mapping[str, Path], /) -> None:
        self.wait("look")

    def decide(self, _request: DatastoreCreate, _facts: None, /) -> Decision[bool]:
        return Decision(plan=GO)

    async def make(self, request: DatastoreCreate, _plan: Any, /) -> DatastoreRecord:
        return DatastoreRecord(kind=request.kind, device=request.device)

    def mount(self, name: str, _record: DatastoreRecord, /) -> Path:
        self.wait("mount")
        root = self.place / name
        root.mkdir(parents=True, exist_ok=True)
        return root

    def unmount(self, _name: str, *, detach: bool = False) -> None:
        self.wait("unmount")

    def present(self, _root: Path, /) -> bool:
        self.wait("present")
        return True

    def space(self, root: Path) -> tuple[int, int]:
        self.wait("space")
        return super().space(root)


@pytest.fixture(autouse=True)
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hanging]]:
    real = kinds.of
    monkeypatch.setattr(kinds, "of", lambda kind: Hanging if kind is DatastoreKind.DISK else real(kind))
    monkeypatch.setattr(deadline.DeadlineWorker.ask, "__defaults__", (0.2,))
    monkeypatch.setattr(arrivals, "LOOK_S", 0.2)
    monkeypatch.setattr(datastores, "LIST_S", 0.2)
    Hanging.hangs, Hanging.answers = set(), threading.Event()
    yield Hanging
    Hanging.answers.set()


async def made(world: World, name: str = "d") -> Datastore:
    request = DatastoreCreate(name=name, kind=DatastoreKind.DISK, device="/dev/slow")
    answer = await world.datastore.create(Call(input=request))
    assert isinstance(answer, Datastore)
    return answer


async def listed(world: World) -> dict[str, Datastore]:
    answer = await world.datastore.list(Call(input=None))
    return {store.name: store for store in answer.datastores}


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0)


@scenario
async def test_a_disk_that_hangs_holds_up_neither_the_start_nor_another_datastore(world: World) -> None:
    await made(world)
    await made(world, "e")
    Hanging.hangs = {"mount"}
    begun = time.monotonic()
    await world.reopen()
    assert time.monotonic() - begun < 5
    stores = world.storage.datastores
    assert sorted(stores.mounted()) == ["local"]
    assert (await refused(asyncio.to_thread(stores.root, "d"))).detail.endswith(mounted.LOOKED_FOR)
    assert any(line == "datastore d is not there: it is being looked for" for line in stores.warnings())
    await world.done(await world.volume.create(Call(input=VolumeCreate(name="v", size_bytes=MIB))))
    seen = await listed(world)
    assert (seen["local"].mounted, seen["d"].mounted) == (True, False)
    events = world.events.rev
    Hanging.answers.set()  # it was only slow: it is used after all, without anybody asking
    await until(lambda: sorted(stores.mounted()) == ["d", "e", "local"])
    came = [event for event in world.events.since(events) if event.kind == "datastore.changed"]
    assert {(event.subject, event.detail["mounted"]) for event in came} == {("d", "true"), ("e", "true")}


@scenario
async def test_what_comes_after_ready_waits_for_a_disk_that_is_only_slow(world: World) -> None:
    """VMs on it start with the host, so autostart waits; a listener knows of it by then."""
    await made(world)
    Hanging.hangs = {"mount"}
    await world.reopen()
    seen: list[str] = []
    world.events.listen(lambda event: seen.append(event.subject))
    settling = asyncio.ensure_future(world.storage.settle())
    await asyncio.sleep(0)
    assert not settling.done()
    Hanging.answers.set()
    await settling
    assert "d" in world.storage.homes()
    assert "d" in seen


@scenario
async def test_what_comes_after_ready_does_not_wait_for_ever(
    world: World,
) -> None:
    await made(world)
    Hanging.hangs = {"mount"}
    await world.reopen()
    seconds, service.SETTLE_S = service.SETTLE_S, 0.05
    try:
        await world.storage.settle()
    finally:
        service.SETTLE_S = seconds
    assert "d" not in world.storage.homes()


@scenario
async def test_a_disk_that_has_not_answered_for_long_is_told(world: World) -> None:
    await made(world)
    Hanging.hangs = {"mount"}
    seconds, arrivals.MOUNT_S = arrivals.MOUNT_S, 0.05
    try:
        await world.reopen()
        await until(lambda: "has not answered" in world.storage.datastores.view("d").why)
    finally:
        arrivals.MOUNT_S = seconds


@pytest.mark.parametrize("what", ["space", "present"])
def test_a_list_answers_while_a_disk_hangs(tmp_path: Path, what: str) -> None:
    async def test(world: World) -> None:
        await made(world)
        await made(world, "e")
        Hanging.hangs = {what}
        seen = await listed(world)
        assert seen["local"].mounted
        assert seen["local"].size_bytes
        assert not seen["d"].mounted
        assert seen["d"].why == "it does not answer"
        error = await refused(
            world.volume.create(Call(input=VolumeCreate(name="v", datastore="d", size_bytes=MIB)))
        )
        assert error.code is Code.UNAVAILABLE
        assert "d" in world.storage.homes()  # its VMs are not forgotten for that
        Hanging.answers.set()
        await until(lambda: world.storage.datastores.view("d").mounted)

    scenario(test)(tmp_path)


@scenario
async def test_forgetting_a_disk_that_hangs_is_refused_and_it_stays(world: World) -> None:
    await made(world)
    Hanging.hangs = {"unmount"}
    delete = Call(input=None, path={"datastore": "d"})
    assert (await refused(world.datastore.delete(delete))).code is Code.UNAVAILABLE
    assert "d" in world.storage.names()
    Hanging.answers.set()
    await until(lambda: world.storage.datastores.view("d").mounted)
    await world.datastore.delete(delete)
    assert world.storage.names() == ["local"]


@scenario
async def test_a_disk_that_hangs_when_it_is_looked_at_becomes_no_datastore(world: World) -> None:
    Hanging.hangs = {"look"}
    error = await refused(made(world))
    assert (error.code, error.detail) == (Code.UNAVAILABLE, "/dev/slow does not answer")
    assert world.storage.names() == ["local"]


@scenario
async def test_a_volume_listing_leaves_out_what_does_not_answer(world: World) -> None:
    await made(world)
    await world.done(await world.volume.create(Call(input=VolumeCreate(name="v", size_bytes=MIB))))
    stuck = threading.Event()
    real = Home.volume_files

    def hang(home: Home) -> Any:
        if home.root.name == "d":
            stuck.wait(60)
        return real(home)

    try:
        Home.volume_files = hang  # type: ignore[method-assign]
        names = [volume.name for volume in (await world.volume.list(Call(input=None))).volumes]
        assert names == ["local/v"]
    finally:
        Home.volume_files = real  # type: ignore[method-assign]
        stuck.set()


def test_another_disk_that_hangs_does_not_hide_the_one_that_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = threading.Event()
    block_of_ours = bytearray(4096)
    block_of_ours[1024 + 56 : 1024 + 58] = b"\x53\xef"
    block_of_ours[1024 + 104 : 1024 + 120] = bytes(range(16))

    def read(device: str, _head: int, _tail: int) -> tuple[int, bytes, bytes]:
        if device == "/dev/dead":
            stuck.wait(60)
        return 4096, bytes(block_of_ours) if device == "/dev/ours" else bytes(4096), b""

    monkeypatch.setattr(disks, "ANSWER_S", 0.1)
    monkeypatch.setattr(block, "names", lambda: ["/dev/dead", "/dev/ours"])
    monkeypatch.setattr(block, "read_ends", read)
    uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f"
    wanted = DatastoreRecord(kind=DatastoreKind.DISK, device="/dev/dead", uuid=uuid)
    assert disks.find_disk(wanted) == "/dev/ours"
    stuck.set()


def test_a_header_is_read_again_only_when_the_file_changed(tmp_path: Path) -> None:
    read: list[bytes] = []
    headers = Headers(lambda path: read.append(path.read_bytes()) or read[-1])
    file = tmp_path / "x"
    file.write_bytes(b"one")
    assert headers.get(file) == headers.get(file) == b"one"
    assert len(read) == 1
    (tmp_path / "y").write_bytes(b"two")
    (tmp_path / "y").rename(file)  # of the same length, put in its place
    assert headers.get(file) == b"two"
    assert len(read) == 2


@scenario
async def test_neither_a_list_nor_a_check_reads_images_it_knows(world: World) -> None:
    await world.upload("base", b"x" * 4096)
    world.storage.resolve_image("base", "")
    await world.image.list(Call(input=None))
    real, seen = block.read_ends, []

    def read(path: str, head: int, tail: int) -> tuple[int, bytes, bytes]:
        seen.append(path)
        return real(path, head, tail)

    block.read_ends = read
    try:
        world.storage.resolve_image("base", "")
        await world.image.list(Call(input=None))
    finally:
        block.read_ends = real
    assert seen == []
