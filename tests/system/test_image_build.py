"""The builder as a whole: the same inputs give the same bytes, and the sizes keep their targets."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from thimble.image import build, cache, inspect, toolbox
from thimble.image.progress import on_stderr
from thimble.medium import uki

pytestmark = [pytest.mark.system, pytest.mark.slow]

TARGETS = {"server": 52_000_000, "virtual": 44_000_000}
SOURCE = Path(build.__file__).resolve().parents[2]


@pytest.mark.timeout(1800)
def test_a_build_in_another_place_is_bit_identical(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages are shared, every stage is made again: other cache, other source directory, other output."""
    shared, home = cache.root(), tmp_path / "another/deeper"
    (home / "cache").mkdir(parents=True)
    for entry in ("debs", "trees", "apt", "toolbox"):
        (home / "cache" / entry).symlink_to(shared / entry)
    shutil.copytree(SOURCE, home / "src", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("THIMBLE_CACHE", str(home / "cache"))
    options = build.BuildOptions(profile="virtual", out=home / "out", source=home / "src")
    another = build.build(options, on_stderr).directory
    media = ("thimble.efi", "thimble.img", "thimble.iso")
    for file in ("vmlinuz", "initrd", *media, "thimble.spdx.json", "manifest.json"):
        assert cache.sha256(image / file) == cache.sha256(another / file), file


def test_the_one_file_carries_its_loaders_and_a_bios_finds_kernel_and_initrd_in_it(image: Path) -> None:
    whole = (image / "thimble.efi").read_bytes()
    read = uki.parse(whole[: uki.HEAD_BYTES], len(whole))

    def content(name: str) -> bytes:
        part = read.sections[name]
        return whole[part.offset : part.offset + part.size]

    for name in ("vmlinuz", "initrd"):
        section = {"vmlinuz": ".linux", "initrd": ".initrd"}[name]
        assert read.sections[section].offset % uki.SECTOR == 0
        assert content(section).startswith((image / name).read_bytes())
    built = json.loads((image / "manifest.json").read_text())
    assert uki.command_line(content(".cmdline")) == built["command_line"]
    assert uki.build_of(built["command_line"]) == built["build"]
    assert uki.os_release(content(".osrel").decode())["BUILD_ID"] == built["build"]
    with tarfile.open(fileobj=io.BytesIO(content(".loader"))) as archive:
        assert archive.getnames() == ["boot.img", "core.img", "systemd-bootx64.efi"]


def test_media_of_the_same_build_are_not_made_again(image: Path, tmp_path: Path) -> None:
    shutil.copytree(image, tmp_path / "virtual")
    before = {path: path.stat() for path in sorted((tmp_path / "virtual").glob("thimble.i*"))}
    assert len(before) == 2
    build.build(build.BuildOptions(profile="virtual", out=tmp_path), on_stderr)
    for path, was in before.items():
        assert path.stat().st_mtime_ns == was.st_mtime_ns
        assert was.st_ino == path.stat().st_ino


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("profile", sorted(TARGETS))
def test_the_footprint_keeps_its_target(profile: str, tmp_path: Path) -> None:
    result = build.build(build.BuildOptions(profile=profile, out=tmp_path), on_stderr)
    report = inspect.inspect(result.directory)
    assert report.total_bytes == result.total_bytes
    assert report.total_bytes <= TARGETS[profile]
    names = {component.name for component in report.components}
    assert {"kernel", "drivers", "qemu", "firmware", "python", "thimble"} <= names
    bill = json.loads((result.directory / "thimble.spdx.json").read_text())
    listed = {package["name"] for package in bill["packages"]}
    assert {package.name for component in report.components for package in component.packages} <= listed


def test_compiled_constants_do_not_follow_the_hash_seed(tmp_path: Path) -> None:
    """functools.pyc once differed between two builds: a frozenset's order was the interpreter's whim."""
    box = toolbox.ensure(on_stderr)
    script = (
        "import marshal, sys; open(sys.argv[1], 'wb').write(marshal.dumps(frozenset(map(str, range(64)))))"
    )
    for name in ("one", "two"):
        box.python(script, str(tmp_path / name))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
