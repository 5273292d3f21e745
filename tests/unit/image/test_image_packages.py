"""Packages: nothing is unpacked unchecked, and a pin that is gone is replaced loudly."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from thimble.core.problem import Code, Problem
from thimble.image import apt, cache, packages
from thimble.image.locking import Lock, Pin
from thimble.image.progress import Report


def a_package(folder: Path, name: str, version: str) -> tuple[Path, Pin]:
    tree = folder / f"{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: Nobody <n@example.org>\nDescription: x\n"
    )
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share" / name).write_text(version)
    deb = folder / f"{name}_{version}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(deb)], check=True, capture_output=True
    )
    return deb, Pin(name=name, version=version, architecture="all", sha256=cache.sha256(deb))


class Mirror(apt.Apt):
    """An apt that offers exactly these packages."""

    def __init__(self, home: Path, offered: dict[Pin, Path]) -> None:
        super().__init__(home, suite="trixie", source_text="# none")
        self.offered = offered
        self.updates = 0

    def update(self, report: Report, *, older_than_s: float = apt.FRESH_S) -> None:
        self.updates += 1

    def resolve(self, names: Iterable[str]) -> list[Pin]:
        newest = {pin.name: pin for pin in sorted(self.offered)}
        return [newest[name] for name in names]

    def versions(self, names: Iterable[str]) -> dict[str, set[str]]:
        return {name: {pin.version for pin in self.offered if pin.name == name} for name in names}

    def download(self, pins: Iterable[Pin], into: Path) -> None:
        wanted = list(pins)
        scratch = self.home / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        for pin in wanted:
            (scratch / self.offered[pin].name).write_bytes(self.offered[pin].read_bytes())
        apt.admit(scratch, {pin.sha256 for pin in wanted}, into)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THIMBLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = packages.PackageList(suite="trixie", sets={"server": (name,)}, skip=frozenset())
    monkeypatch.setattr(packages, "wanted", lambda: lists)


def test_a_pinned_package_is_fetched_and_unpacked(tmp_path: Path) -> None:
    deb, pin = a_package(tmp_path, "thing", "1.0")
    mirror = Mirror(tmp_path / "apt", {pin: deb})
    lock = Lock(suite="trixie", epoch=0, sets={"server": (pin,)})
    found = packages.ensure("server", lambda *_: None, apt=mirror, lock=lock)
    assert (found.trees["thing"] / "data/usr/share/thing").read_text() == "1.0"
    assert found.replaced == ()


def test_what_is_cached_needs_no_mirror(tmp_path: Path) -> None:
    deb, pin = a_package(tmp_path, "thing", "1.0")
    mirror = Mirror(tmp_path / "apt", {pin: deb})
    lock = Lock(suite="trixie", epoch=0, sets={"server": (pin,)})
    packages.ensure("server", lambda *_: None, apt=mirror, lock=lock)
    packages.ensure("server", lambda *_: None, apt=mirror, lock=lock)
    assert mirror.updates == 1


def test_a_tampered_package_is_refused_by_the_downloader(tmp_path: Path) -> None:
    deb, pin = a_package(tmp_path, "thing", "1.0")
    data = bytearray(deb.read_bytes())
    data[-1] ^= 1
    deb.write_bytes(bytes(data))
    mirror = Mirror(tmp_path / "apt", {pin: deb})
    lock = Lock(suite="trixie", epoch=0, sets={"server": (pin,)})
    with pytest.raises(Problem, match="is not the pinned package") as caught:
        packages.ensure("server", lambda *_: None, apt=mirror, lock=lock)
    assert caught.value.code is Code.INVALID


def test_a_package_tampered_with_in_the_cache_is_never_unpacked(tmp_path: Path, own_cache: Path) -> None:
    deb, pin = a_package(tmp_path, "thing", "1.0")
    (own_cache / "debs").mkdir(parents=True)
    (own_cache / "debs" / f"{pin.sha256}.deb").write_bytes(deb.read_bytes() + b"x")
    lock = Lock(suite="trixie", epoch=0, sets={"server": (pin,)})
    with pytest.raises(Problem, match="does not have the SHA-256 that is pinned"):
        packages.ensure("server", lambda *_: None, apt=Mirror(tmp_path / "apt", {}), lock=lock)
    assert not (own_cache / "trees" / pin.sha256).exists()


def test_a_pin_that_is_gone_is_replaced_by_the_newest_and_said_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, old = a_package(tmp_path, "thing", "1.0")
    deb, new = a_package(tmp_path, "thing", "1.1")
    only("thing", monkeypatch)
    said: list[str] = []
    lock = Lock(suite="trixie", epoch=0, sets={"server": (old,)})
    found = packages.ensure(
        "server",
        lambda stage, done, detail: said.append(detail),
        apt=Mirror(tmp_path / "apt", {new: deb}),
        lock=lock,
    )
    assert found.replaced == ("thing 1.0 → 1.1",)
    assert (found.trees["thing"] / "data/usr/share/thing").read_text() == "1.1"
    assert any(line.startswith("WARNING: Debian no longer offers") for line in said)
