"""Two verbs never work on the same volume or image, and nothing that is held is taken away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage_world import World, refused, scenario

from thimble.contract.call import Call
from thimble.contract.storage import Image, VolumeCreate
from thimble.contract.vm import DiskFormat, DiskSpec
from thimble.core.problem import Code, Problem
from thimble.core.units import MIB
from thimble.storage.attachments import Attachments, Claim, Mode, Ports


def claims_of(users: dict[str, str]) -> Attachments:
    ports = Ports()
    attachments = Attachments(ports)
    ports.volume_users = lambda: users  # registered later, when the VM service is made
    return attachments


def test_the_second_who_wants_to_write_is_refused_and_told_who_has_it() -> None:
    claims = claims_of({}).volumes
    with claims.take("local/data", "vm-1", "vm.change"):
        with pytest.raises(Problem) as found, claims.take("local/data", "vm-2", "vm.create"):
            pass
        assert found.value.code is Code.IN_USE
        assert found.value.detail == "local/data is held by vm-1 for vm.change"
        assert [r.message for r in claims.reasons("local/data", vm="vm-2")] == [found.value.detail]
        assert claims.reasons("local/data", vm="vm-1") == []
    with claims.take("local/data", "vm-2", "vm.create"):
        pass


def test_several_are_taken_together_or_not_at_all() -> None:
    claims = claims_of({}).volumes
    with claims.take("local/b", "vm-1", "vm.change"):
        with pytest.raises(Problem), claims.take_all(["local/a", "local/b"], "vm-2", "vm.create"):
            pass
        assert not claims.claimed("local/a")
    with claims.take_all(["local/a", "local/b"], "vm-2", "vm.create"):
        assert claims.claimed("local/a")
        assert claims.claimed("local/b")


def test_a_claim_ends_with_its_work_however_that_ends() -> None:
    claims = claims_of({}).volumes
    with pytest.raises(ZeroDivisionError), claims.take("local/data", "vm-1", "vm.change"):
        _ = 1 // 0
    assert not claims.claimed("local/data")


def test_who_has_it_by_a_record_is_named_and_its_own_use_does_not_count() -> None:
    claims = claims_of({"local/data": "vm-1"}).volumes
    assert [r.message for r in claims.reasons("local/data")] == ["local/data is used by vm-1"]
    assert claims.reasons("local/data", vm="vm-1") == []
    assert claims.reasons("local/other") == []


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(Mode), st.booleans()), max_size=30))
def test_there_is_never_a_writer_beside_another(steps: list[tuple[str, Mode, bool]]) -> None:
    claims = claims_of({}).images
    held: list[Claim] = []
    for ref, mode, leaves in steps:
        if leaves and held:
            held.pop(0).__exit__(None, None, None)
            continue
        clash = any(one.ref == ref and Mode.WRITE in (mode, one.mode) for one in held)
        claim = claims.take(ref, "somebody", "work", mode)
        assert bool(claims.reasons(ref, mode=mode)) == clash
        try:
            claim.__enter__()
        except Problem:
            assert clash
        else:
            assert not clash
            held.append(claim)


def volume(name: str, **more: object) -> Call[VolumeCreate]:
    return Call(input=VolumeCreate(name=name, **more), user="ann")  # type: ignore[arg-type]


@scenario
async def test_of_two_that_make_the_same_volume_in_one_breath_one_is_refused(world: World) -> None:
    """The name was checked when it was asked for, and again only when the file got its name."""
    await world.upload("base", os.urandom(8 * MIB))
    answers = await asyncio.gather(
        *(world.volume.create(volume("same", image="base", format=format)) for format in DiskFormat),
        return_exceptions=True,
    )
    problems = [answer for answer in answers if isinstance(answer, Problem)]
    for started in answers:
        if not isinstance(started, BaseException):
            task = await world.tasks.wait(started.task.id, 60)  # type: ignore[union-attr]
            if task.problem is not None:
                problems.append(task.problem.problem())
    assert [problem.code for problem in problems] == [Code.IN_USE]
    said = [problems[0].detail, *(reason.message for reason in problems[0].reasons)]
    assert "local/same is held by ann for volume.create" in said
    assert [v.name for v in (await world.volume.list(Call(input=None))).volumes] == ["local/same"]


@scenario
async def test_a_volume_that_somebody_works_on_is_neither_deleted_nor_given_to_a_vm(world: World) -> None:
    await world.done(await world.volume.create(volume("data", size_bytes=MIB)))
    delete = Call(input=None, path={"volume": "data"})
    with world.storage.attachments.volumes.take("local/data", "vm-1", "vm.change"):
        error = await refused(world.volume.delete(delete))
        assert (error.code, "vm-1" in error.detail) == (Code.IN_USE, True)
        dry = await world.volume.delete(Call(input=None, path={"volume": "data"}, dry_run=True))
        assert not dry.possible  # type: ignore[union-attr]
        spec = DiskSpec(volume="data")
        assert world.storage.check_disk(spec, "local", "$", vm="vm-2")[0].code is Code.IN_USE
        assert world.storage.check_disk(spec, "local", "$", vm="vm-1") == []
    await world.volume.delete(delete)


@scenario
async def test_an_image_that_is_being_copied_is_not_deleted_but_copied_again(world: World) -> None:
    await world.upload("base", os.urandom(MIB))
    delete = Call(input=None, path={"image": "base"})
    with world.storage.attachments.images.take("local/base", "vm-1", "a copy", Mode.READ):
        error = await refused(world.image.delete(delete))
        assert error.code is Code.IN_USE
        assert error.detail == "local/base is held by vm-1 for a copy"
        await world.done(await world.volume.create(volume("copy", image="base")))
    await world.image.delete(delete)


@scenario
async def test_an_image_on_its_way_in_keeps_its_datastore(world: World) -> None:
    place = world.directory / "data"
    place.mkdir()
    from thimble.contract.storage import DatastoreCreate, DatastoreKind

    request = DatastoreCreate(name="data", kind=DatastoreKind.DIRECTORY, path=str(place))
    await world.datastore.create(Call(input=request))
    begun, end = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.set()
        await end.wait()
        yield b"x" * 4096

    call = Call(input=None, path={"image": "data/slow"}, body=slow(), length=4096)
    upload = asyncio.ensure_future(world.image.upload(call))
    await begun.wait()
    forget = Call(input=None, path={"datastore": "data"})
    assert (await refused(world.datastore.delete(forget))).code is Code.IN_USE
    end.set()
    assert isinstance(await upload, Image)
    await world.datastore.delete(forget)
