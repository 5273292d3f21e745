"""Packages on disk: from a set's name to one extracted directory per package.

The pins of the lock file decide. Only if Debian no longer offers one of them is the whole set resolved anew
to the newest verified versions (mixing old and new would break exact dependencies), and that is said
loudly. Nothing is extracted whose SHA-256 was not checked just before.
"""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from thimble.image import cache, locking
from thimble.image.apt import Apt
from thimble.image.fault import fault
from thimble.image.locking import Lock, Pin
from thimble.image.progress import Report

LOCK_FILE = Path(__file__).parent / "lock.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSet:
    """A set that is ready: its pins, where each is extracted, and what had to be replaced."""

    pins: tuple[Pin, ...]
    trees: dict[str, Path]
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageList:
    """The literal lists: what each set asks for, and which dependencies nothing is ever taken from."""

    suite: str
    sets: dict[str, tuple[str, ...]]
    skip: frozenset[str]


def wanted() -> PackageList:
    """Read data/packages.toml."""
    raw = tomllib.loads(resources.files("thimble.image").joinpath("data/packages.toml").read_text())
    sets = {name: tuple(raw["common"] + raw[name]) for name in ("server", "virtual")}
    return PackageList(
        suite=raw["suite"], sets={"toolbox": tuple(raw["toolbox"]), **sets}, skip=frozenset(raw["skip"])
    )


def private_apt(suite: str) -> Apt:
    return Apt(cache.root() / "apt" / suite, suite=suite)


def resolve(apt: Apt, lists: PackageList, name: str) -> tuple[Pin, ...]:
    """The newest closure of one set."""
    pins = apt.resolve(lists.sets[name])
    return tuple(pin for pin in pins if name == "toolbox" or pin.name not in lists.skip)


def read_lock() -> Lock:
    return locking.read(LOCK_FILE.read_text())


def ensure(name: str, report: Report, *, apt: Apt | None = None, lock: Lock | None = None) -> PackageSet:
    """The packages of one set, fetched and extracted; cached as a whole."""
    lock = lock or read_lock()
    apt = apt or private_apt(lock.suite)
    pins = lock.named(name)
    replaced: tuple[str, ...] = ()
    if absent := _absent(pins):
        pins, replaced = _obtainable(apt, name, pins, absent, report)
        _fetch(apt, _absent(pins), report)
    trees = {}
    for number, pin in enumerate(pins):
        if not _tree(pin).is_dir():
            report("extract", number / len(pins), str(pin))
        trees[pin.name] = extract(pin)
    return PackageSet(pins=pins, trees=trees, replaced=replaced)


def _deb(pin: Pin) -> Path:
    return cache.root() / "debs" / f"{pin.sha256}.deb"


def _tree(pin: Pin) -> Path:
    return cache.root() / "trees" / pin.sha256


def _absent(pins: Iterable[Pin]) -> list[Pin]:
    return [pin for pin in pins if not _tree(pin).is_dir() and not _deb(pin).is_file()]


def _obtainable(
    apt: Apt, name: str, pins: tuple[Pin, ...], absent: list[Pin], report: Report
) -> tuple[tuple[Pin, ...], tuple[str, ...]]:
    """The pins if Debian still has them, else the newest set and what that changed."""
    apt.update(report)
    gone = missing(absent, apt)
    if gone:
        apt.update(report, older_than_s=0)
        gone = missing(absent, apt)
    if not gone:
        return pins, ()
    newest = resolve(apt, wanted(), name)
    lines = tuple(locking.changes(pins, newest))
    report(
        "packages",
        None,
        f"WARNING: Debian no longer offers {len(gone)} pinned packages of `{name}`: "
        + ", ".join(map(str, gone)),
    )
    for line in lines:
        report("packages", None, f"WARNING: not as pinned: {line}")
    report("packages", None, "WARNING: taking the newest verified versions; `thimble image lock` pins them")
    return newest, lines


def missing(pins: Iterable[Pin], apt: Apt) -> list[Pin]:
    """Which of these the package lists do not offer."""
    offered = apt.versions({pin.name for pin in pins})
    return [pin for pin in pins if pin.version not in offered.get(pin.name, set())]


def _fetch(apt: Apt, absent: list[Pin], report: Report) -> None:
    """Download in batches, so that an interrupted download resumes where it was."""
    step = 24
    for start in range(0, len(absent), step):
        batch = absent[start : start + step]
        report("packages", start / len(absent), f"fetching {batch[0].name} … ({len(absent) - start} to go)")
        apt.download(batch, cache.root() / "debs")


def extract(pin: Pin) -> Path:
    """The directory this package unpacks to, its SHA-256 checked first."""

    def make(into: Path) -> None:
        unpack(_deb(pin), pin.sha256, into)

    return cache.directory(_tree(pin), make)


def unpack(deb: Path, sha256: str, into: Path) -> None:
    """Unpack a verified package to `into`/data, its control fields to `into`/control.json."""
    digest = cache.sha256(deb)
    if digest != sha256:
        raise fault(
            "invalid",
            f"{deb.name} does not have the SHA-256 that is pinned",
            hint="delete it from the cache and build again",
            reasons=(f"expected {sha256}", f"found {digest}"),
        )
    data = into / "data"
    data.mkdir()
    reader = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
    writer = subprocess.run(
        [
            "tar",
            "--extract",
            "--file=-",
            f"--directory={data}",
            "--no-same-owner",
            "--delay-directory-restore",
        ],
        stdin=reader.stdout,
        check=False,
    )
    if reader.wait() != 0 or writer.returncode != 0:
        raise fault("failed", f"{deb.name} could not be unpacked", hint="is the disk full?")
    fields = subprocess.run(
        ["dpkg-deb", "--field", str(deb)], capture_output=True, text=True, check=True
    ).stdout
    control = {
        line.split(":", 1)[0]: line.split(":", 1)[1].strip()
        for line in fields.splitlines()
        if ":" in line[1:] and line[0] != " "
    }
    (into / "control.json").write_text(json.dumps(control, sort_keys=True))
