"""Writing a stick: a file stands for it, and where there is root, a loop device does."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from thimble.core.problem import Code, Problem
from thimble.image import disk, toolbox, write
from thimble.image.progress import on_stderr, silent
from thimble.medium import layout

DOCUMENT = 'format = 1\n\n[host]\nname = "written"\n'
STICK_BYTES = 600 << 20


def sfdisk(path: Path) -> dict[str, object]:
    box = toolbox.ensure(on_stderr)
    said = subprocess.run(box.argv("sfdisk", "--json", str(path)), capture_output=True, check=True).stdout
    found: dict[str, object] = json.loads(said)["partitiontable"]
    return found


def document_on(path: Path) -> str:
    parts = layout.partitions(boot_mib=disk.BOOT_MIB, state_mib=disk.STATE_MIB)
    start = next(part.start for part in parts if part.name == layout.DOCUMENT)
    argv = toolbox.ensure(on_stderr).argv("mtype", "-i", f"{path}@@{start}", "::/thimble.toml")
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "thimble.toml"
    path.write_text(DOCUMENT)
    return path


def put(image: Path, where: Path, document: Path | None = None) -> list[tuple[str, float]]:
    told: list[tuple[str, float]] = []
    planned = write.plan(image, where, document=document, allowed=())
    write.write(planned, lambda stage, done, _: told.append((stage, done or 0.0)))
    return told


def test_a_new_file_is_the_image(image: Path, tmp_path: Path) -> None:
    told = put(image, tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == (image / "thimble.img").read_bytes()
    assert told[0][0] == "write" and ("write", 1.0) in told and ("verify", 1.0) in told


def test_on_a_larger_disk_the_second_table_lies_at_the_end(
    image: Path, tmp_path: Path, document: Path
) -> None:
    stick = tmp_path / "stick"
    with stick.open("xb") as handle:
        handle.truncate(STICK_BYTES)
    put(image, stick, document)
    assert stick.stat().st_size == STICK_BYTES
    assert sfdisk(stick)["lastlba"] == STICK_BYTES // 512 - 34
    assert document_on(stick) == DOCUMENT


def test_a_disk_that_is_too_small_is_left_alone(image: Path, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"mine".ljust(1 << 20))
    with pytest.raises(Problem) as caught:
        put(image, tmp_path / "small")
    assert caught.value.code is Code.CONFLICT
    assert "too small" in caught.value.reasons[0].message
    assert (tmp_path / "small").read_bytes().startswith(b"mine")


def test_a_stick_that_forgets_is_found_out(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pread

    def bad(handle: int, size: int, at: int) -> bytes:
        return bytes(size) if at == 0 else real(handle, size, at)

    planned = write.plan(image, tmp_path / "new", document=None, allowed=())
    monkeypatch.setattr(os, "pread", bad)
    with pytest.raises(Problem, match="is not readable as written"):
        write.write(planned, silent)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    """A block device that is a file."""
    backing = tmp_path / "backing"
    with backing.open("xb") as handle:
        handle.truncate(STICK_BYTES)
    made = subprocess.run(
        ["losetup", "--find", "--show", str(backing)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no loop devices here: {made.stderr.strip()}")
    device = Path(made.stdout.strip())
    yield device
    subprocess.run(["losetup", "--detach", str(device)], check=True)


def test_a_device_is_written_to(image: Path, loop: Path, document: Path) -> None:
    put(image, loop, document)
    assert sfdisk(loop)["lastlba"] == STICK_BYTES // 512 - 34
    assert document_on(loop) == DOCUMENT


def test_a_mounted_device_is_refused(image: Path, loop: Path, tmp_path: Path) -> None:
    box = toolbox.ensure(on_stderr)
    subprocess.run(box.argv("mkfs.ext4", "-q", str(loop)), check=True)
    folder = tmp_path / "mounted"
    folder.mkdir()
    subprocess.run(["mount", str(loop), str(folder)], check=True)
    try:
        with pytest.raises(Problem) as caught:
            put(image, loop)
        assert caught.value.code is Code.CONFLICT
        assert f"is mounted on {folder}" in caught.value.reasons[0].message
    finally:
        subprocess.run(["umount", str(folder)], check=True)
