from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from storage_world import World, body, refused, scenario

from thimble.contract.call import Call
from thimble.contract.storage import Image
from thimble.core.problem import Code, Problem


def qemu_img(*words: str) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


@scenario
async def test_an_upload_is_stored_with_its_digest_and_format(world: World) -> None:
    data = os.urandom(3_000_000)
    image = await world.upload("debian.raw", data)
    assert isinstance(image, Image)
    assert (image.name, image.format, image.size_bytes) == ("local/debian.raw", "raw", 3_000_000)
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert (world.local / "images" / "debian.raw").read_bytes() == data
    assert [found.name for found in (await world.image.list(Call(input=None))).images] == ["local/debian.raw"]
    assert world.leftovers() == []


@scenario
async def test_a_truncated_upload_leaves_nothing(world: World) -> None:
    error = await refused(world.upload("cut", b"x" * 5000, length=9000))
    assert (error.code, error.status) == (Code.MALFORMED, 400)
    assert list((world.local / "images").iterdir()) == []


@scenario
async def test_an_upload_whose_client_vanishes_leaves_nothing(world: World) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000
        raise ConnectionResetError

    call = Call(input=None, path={"image": "gone"}, body=broken(), length=9_000_000)
    await refused(world.image.upload(call))
    assert list((world.local / "images").iterdir()) == []


@scenario
async def test_a_cancelled_upload_leaves_nothing(world: World) -> None:
    stuck = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000
        stuck.set()
        await asyncio.Event().wait()

    call = Call(input=None, path={"image": "slow"}, body=slow(), length=9_000_000)
    work = asyncio.create_task(world.image.upload(call))
    await stuck.wait()
    second = await refused(world.upload("slow", b"y"))
    assert second.code is Code.IN_USE
    assert "for image.upload" in second.detail
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert list((world.local / "images").iterdir()) == []


@scenario
async def test_a_wrong_digest_is_refused_and_a_right_one_makes_uploads_repeatable(world: World) -> None:
    data = b"kernel" * 1000
    digest = hashlib.sha256(data).hexdigest()
    error = await refused(world.upload("vmlinuz", data, sha256="0" * 64))
    assert error.code is Code.INVALID
    assert await world.upload("vmlinuz", data, sha256=digest) == await world.upload(
        "vmlinuz", b"not even read", sha256=digest
    )
    assert (await refused(world.upload("vmlinuz", data))).code is Code.EXISTS


@scenario
async def test_more_than_fits_is_refused_before_the_first_byte(world: World) -> None:
    error = await refused(world.upload("huge", b"", length=1 << 60))
    assert (error.code, error.status) == (Code.NO_SPACE, 507)


@scenario
async def test_names_cannot_leave_the_directory(world: World) -> None:
    for name in ("../../etc/passwd", "local/../x", "local/.hidden", "local/", "a b", "x.json", "local/a/b"):
        assert (await refused(world.upload(name, b"x"))).status in (404, 422), name
    assert list((world.local / "images").iterdir()) == []


@scenario
async def test_an_empty_upload_and_an_unknown_datastore_are_refused(world: World) -> None:
    assert (await refused(world.upload("empty", b""))).code is Code.MALFORMED
    assert (await refused(world.upload("nowhere/x", b"x"))).code is Code.NOT_FOUND


@scenario
async def test_files_that_refer_to_others_are_refused(world: World) -> None:
    place = world.directory
    secret = place / "secret"
    secret.write_bytes(b"root:x:" * 1000)
    backed, external = place / "backed.qcow2", place / "external.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(backed))
    data_file = f"data_file={place / 'data'},data_file_raw=on"
    qemu_img("create", "-f", "qcow2", "-o", data_file, str(external), "1M")
    flat = place / "flat.vmdk"
    qemu_img("create", "-f", "vmdk", "-o", "subformat=monolithicFlat", str(flat), "1M")
    differencing = bytearray(1024)
    differencing[512:520] = b"conectix"
    differencing[512 + 60 : 512 + 64] = b"\0\0\0\4"
    for number, data in enumerate(
        (backed.read_bytes(), external.read_bytes(), flat.read_bytes(), bytes(differencing), b"QED\0" * 99)
    ):
        error = await refused(world.upload(f"bad{number}", data))
        assert error.code is Code.INVALID
        assert "refers to" in error.detail
    assert list((world.local / "images").iterdir()) == []


@scenario
async def test_a_damaged_qcow2_is_refused(world: World) -> None:
    error = await refused(world.upload("bad", b"QFI\xfb\0\0\0\3" + bytes(16) + b"\xff" * 8 + bytes(500)))
    assert error.code is Code.INVALID
    assert list((world.local / "images").iterdir()) == []


@scenario
async def test_every_kind_of_disk_image_that_stands_alone_is_taken(world: World) -> None:
    for format in ("qcow2", "vmdk", "vdi", "vhdx", "vpc"):
        path = Path(world.directory / f"one.{format}")
        qemu_img("create", "-f", format, str(path), "8M")
        image = await world.upload(path.name, path.read_bytes())
        assert isinstance(image, Image)
        assert image.format == format
        assert image.size_bytes >= 8 << 20
        task = await world.done(await world.volume.create(volume_call(f"copy-{format}", image=image.name)))
        assert int(task.result["size_bytes"]) == image.size_bytes


def volume_call(name: str, **more: object) -> Call[object]:
    from thimble.contract.storage import VolumeCreate

    return Call(input=VolumeCreate(name=name, **more))  # type: ignore[arg-type]


@scenario
async def test_a_qcow2_with_snapshots_inside_is_fine(world: World) -> None:
    path = world.directory / "snap.qcow2"
    qemu_img("create", "-f", "qcow2", str(path), "8M")
    qemu_img("snapshot", "-c", "before", str(path))
    assert isinstance(await world.upload("snap.qcow2", path.read_bytes()), Image)


@scenario
async def test_an_image_in_a_drive_is_not_deleted(world: World) -> None:
    await world.upload("x.iso", bytes(32769) + b"CD001" + bytes(4096))
    assert world.storage.resolve_image("x.iso", "local").kind == "iso"
    assert world.storage.resolve_image("x.iso", "local").format == "raw"
    world.ports.image_users = lambda: {"local/x.iso": "vm-1"}
    error = await refused(world.image.delete(Call(input=None, path={"image": "x.iso"})))
    assert error.code is Code.IN_USE
    world.ports.image_users = dict
    await world.image.delete(Call(input=None, path={"image": "x.iso"}))
    assert list((world.local / "images").iterdir()) == []


@scenario
async def test_a_dry_run_of_an_upload_reads_nothing(world: World) -> None:
    call = Call(input=None, path={"image": "x"}, body=body(b"x"), length=1, dry_run=True)
    answer = await world.image.upload(call)
    assert answer.possible  # type: ignore[union-attr]
    assert list((world.local / "images").iterdir()) == []


@scenario
async def test_what_a_symbolic_link_leads_to_is_no_image(world: World) -> None:
    secret = world.directory / "secret"
    secret.write_bytes(b"s" * 512)
    images = world.local / "images"
    (images / "plain").write_bytes(b"p" * 512)
    (images / "linked").symlink_to(secret)
    os.mkfifo(images / "pipe")
    assert world.storage.resolve_image("plain", "local").file_bytes == 512
    for name in ("linked", "pipe"):
        with pytest.raises(Problem) as found:
            world.storage.resolve_image(name, "local")
        assert found.value.code is Code.NOT_FOUND
    assert [facts.ref for facts in await world.storage.images.all()] == ["local/plain"]


@scenario
async def test_an_upload_does_not_write_through_a_symbolic_link(world: World) -> None:
    victim = world.directory / "victim"
    victim.write_text("precious")
    (world.local / "images" / ".new.raw.new").symlink_to(victim)
    await refused(world.upload("new.raw", b"x" * 4096))
    assert victim.read_text() == "precious"


@scenario
async def test_a_file_beside_an_image_cannot_make_it_acceptable(world: World) -> None:
    images = world.local / "images"
    (world.directory / "secret").write_bytes(b"s" * 4096)
    qemu_img(
        "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(world.directory / "secret"), str(images / "a")
    )
    (images / "a.json").write_text('{"format":"qcow2","file_bytes":1,"size_bytes":4096,"sha256":""}')
    with pytest.raises(Problem, match="backing file"):
        world.storage.resolve_image("a", "local")
    (images / "b").write_bytes(b"plain" * 1024)
    (images / "b.json").write_text('{"format":"vmdk","file_bytes":1,"size_bytes":4096,"sha256":""}')
    with pytest.raises(Problem, match="not vmdk"):
        world.storage.resolve_image("b", "local")
