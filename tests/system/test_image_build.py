"""The builder as a whole: the same inputs give the same bytes, and the sizes keep their targets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from thimble.image import build, cache, inspect
from thimble.image.progress import on_stderr

pytestmark = [pytest.mark.system, pytest.mark.slow]

TARGETS = {"server": 52_000_000, "virtual": 44_000_000}
SOURCE = Path(build.__file__).resolve().parents[2]


@pytest.mark.timeout(1800)
def test_two_builds_in_different_places_are_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages are shared, every stage is made twice: other cache, other source directory, other output."""
    shared = cache.root()
    results = []
    for name in ("one", "another/deeper"):
        home = tmp_path / name
        (home / "cache").mkdir(parents=True)
        for entry in ("debs", "trees", "apt", "toolbox"):
            if (shared / entry).exists():
                (home / "cache" / entry).symlink_to(shared / entry)
        shutil.copytree(SOURCE, home / "src", ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setenv("THIMBLE_CACHE", str(home / "cache"))
        options = build.Options(profile="virtual", out=home / "out", source=home / "src")
        results.append(build.build(options, on_stderr))
    for file in ("vmlinuz", "initrd", "thimble.efi", "thimble.spdx.json", "manifest.json"):
        one, another = (cache.sha256(result.directory / file) for result in results)
        assert one == another, file


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("profile", sorted(TARGETS))
def test_the_footprint_keeps_its_target(profile: str, tmp_path: Path) -> None:
    result = build.build(build.Options(profile=profile, out=tmp_path), on_stderr)
    report = inspect.inspect(result.directory)
    assert report.total_bytes == result.total_bytes
    assert report.total_bytes <= TARGETS[profile]
    names = {component.name for component in report.components}
    assert {"kernel", "drivers", "qemu", "firmware", "python", "thimble"} <= names
    bill = json.loads((result.directory / "thimble.spdx.json").read_text())
    listed = {package["name"] for package in bill["packages"]}
    assert {package.name for component in report.components for package in component.packages} <= listed
