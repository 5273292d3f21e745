"""Media without a machine: what may be written to, a firmware's variables, what a CD is told."""

from __future__ import annotations

import base64
import io
import mmap
import struct
import tarfile
import uuid
from pathlib import Path

import pytest

from thimble.core.problem import Code, Problem
from thimble.image import efivars, iso, signing, target, write
from thimble.image.loaders import DiskLoaders
from thimble.image.target import WriteTarget

GB = 10**9
STICK = WriteTarget(path=Path("/dev/sdx"), is_device=True, size=16 * GB, model="Cheap Stick")


def test_a_stick_may_be_written_to() -> None:
    assert target.blockers(STICK, GB, ()) == []
    assert str(STICK) == "/dev/sdx (Cheap Stick), 16.0 GB"


def test_a_new_file_has_no_size_to_be_too_small() -> None:
    assert target.blockers(WriteTarget(path=Path("/x"), is_new=True), GB, ()) == []


def test_all_reasons_are_told_at_once() -> None:
    bad = WriteTarget(
        path=Path("/dev/sda1"), is_device=True, size=GB, whole=False, removable=False, uses=("sda1 is swap",)
    )
    said = " / ".join(target.blockers(bad, 2 * GB, ()))
    for word in ("sda1 is swap", "give the whole disk", "too small", "--internal"):
        assert word in said


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (WriteTarget(path=Path("/dev/sda"), is_device=True, size=500 * GB), "large"),
        (WriteTarget(path=Path("/dev/sda"), is_device=True, size=16 * GB, removable=False), "internal"),
    ],
)
def test_what_looks_wrong_is_written_when_it_is_meant(found: WriteTarget, word: str) -> None:
    assert len(target.blockers(found, GB, ())) == 1
    assert target.blockers(found, GB, (word,)) == []


def test_nobody_can_mean_a_disk_in_use() -> None:
    used = WriteTarget(path=Path("/dev/sda"), is_device=True, size=16 * GB, uses=("sda2 is mounted on /",))
    assert target.blockers(used, GB, ("large", "internal"))


def test_what_is_no_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        target.look(Path("/dev/null"))
    assert caught.value.code is Code.INVALID
    with pytest.raises(Problem) as caught:
        target.look(tmp_path / "no folder" / "file")
    assert caught.value.code is Code.NOT_FOUND
    with pytest.raises(Problem) as caught:
        target.look(Path("/dev/no-such-disk"))
    assert caught.value.code is Code.NOT_FOUND


def test_a_document_that_is_no_toml_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "thimble.img").write_bytes(bytes(4096))
    (tmp_path / "thimble.toml").write_text("format = \n")
    with pytest.raises(Problem, match="not a TOML document"):
        write.plan(tmp_path, tmp_path / "stick", document=tmp_path / "thimble.toml", allowed=())
    assert not (tmp_path / "stick").exists()


def test_an_image_that_is_not_as_it_was_built_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thimble.img").write_bytes(bytes(4096))
    (tmp_path / "manifest.json").write_text('{"files": {"thimble.img": {"sha256": "00"}}}')
    with pytest.raises(Problem, match="not the file that was built"):
        write.plan(tmp_path, tmp_path / "stick", document=None, allowed=())


def certificate(content: bytes) -> str:
    text = base64.encodebytes(content).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


def test_a_signature_list_is_as_long_as_it_says() -> None:
    made = efivars.signature_list(certificate(b"0123456789"), uuid.UUID(int=7))
    whole, header, entry = struct.unpack_from("<III", made, 16)
    assert (whole, header, entry) == (len(made), 0, 26)
    assert made.endswith(uuid.UUID(int=7).bytes_le + b"0123456789")


def test_a_variable_carries_stamp_signature_and_content() -> None:
    signed = b"\x30\x03abc"
    inner = b"\x06\x01\x00" + b"\xa0" + bytes([len(signed)]) + signed
    cms = b"\x30" + bytes([len(inner)]) + inner
    stamp = efivars.timestamp(0)
    assert stamp == struct.pack("<HBBBBB", 1970, 1, 1, 0, 0, 0) + bytes(9)
    made = efivars.authenticated(stamp, cms, b"content")
    (length,) = struct.unpack_from("<I", made, 16)
    assert made[16 + length :] == b"content"
    assert made[16 + 24 : 16 + length] == signed, "SignedData alone, without its ContentInfo"


@pytest.mark.parametrize("cms", [b"", b"\x31\x00", b"\x30\x02\x06\x00"])
def test_what_is_no_signature_is_refused(cms: bytes) -> None:
    with pytest.raises(Problem):
        efivars.authenticated(efivars.timestamp(0), cms, b"")


def test_each_variable_is_signed_for_its_own_name() -> None:
    stamp = efivars.timestamp(0)
    assert len({efivars.to_sign(name, stamp, b"x") for name in signing.VARIABLES}) == 3


def test_a_key_folder_with_one_variable_missing_is_refused(tmp_path: Path) -> None:
    for name in ("db.key", "PK.auth", "db.auth"):
        (tmp_path / name).touch()
    (tmp_path / "db.crt").write_text(certificate(b"x"))
    with pytest.raises(Problem, match=r"lacks KEK\.auth"):
        signing.from_folder(tmp_path)


def test_the_loaders_travel_in_one_tar_that_is_always_the_same() -> None:
    found = DiskLoaders(systemd_boot=b"sd", boot=b"b", core=b"c")
    made = found.tar(86400)
    assert made == found.tar(86400)
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        assert archive.getnames() == ["boot.img", "core.img", "systemd-bootx64.efi"]


def test_the_cds_record_of_a_file_is_found_across_blocks() -> None:
    disc = mmap.mmap(-1, 64 * 2048)
    struct.pack_into("<I", disc, 16 * 2048 + 156 + 2, 20)
    struct.pack_into("<I", disc, 16 * 2048 + 156 + 10, 2 * 2048)
    for at, name in ((20 * 2048, b"GRUB"), (21 * 2048, b"THIMBLE.EFI;1")):
        disc[at], disc[at + 32] = 33 + len(name), len(name)
        disc[at + 33 : at + 33 + len(name)] = name
    assert iso._record(disc, b"THIMBLE.EFI;1") == 21 * 2048
    with pytest.raises(Problem):
        iso._record(disc, b"OTHER;1")
