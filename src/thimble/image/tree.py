"""From packages to entries: the listed files, and the shared libraries they need."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

from thimble.image import elf
from thimble.image.fault import fault
from thimble.image.layout import LIBRARY_FOLDER, Component, ImageEntry, Place
from thimble.image.packages import PackageSet


def _moved(path: str, to: str) -> str:
    """Where a package's file lies in the image: programs in one folder, the rest as packaged."""
    if to:
        return f"{to}/{path.rsplit('/', 1)[-1]}"
    path = path.removeprefix("usr/")
    return "bin/" + path.removeprefix("sbin/") if path.startswith("sbin/") else path


def listed(found: PackageSet) -> list[ImageEntry]:
    """The files of data/tree.toml; one that a package no longer has is refused, unless it is optional."""
    raw = tomllib.loads(resources.files("thimble.image").joinpath("data/tree.toml").read_text())
    entries = []
    for take in raw["take"]:
        place, package = Place(take.get("place", "root")), take["package"]
        root = found.trees[package] / "data"
        for pattern in take["files"]:
            paths = [path for path in (root / pattern,) if path.is_file() or path.is_symlink()]
            if not paths and not take.get("optional"):
                raise fault(
                    "not-found",
                    f"{package} has no {pattern}",
                    hint="the package changed: update data/tree.toml",
                )
            for path in paths:
                entries.append(
                    _entry(path, root, place, Component(take["component"]), package, take.get("to", ""))
                )
    return entries


def _entry(path: Path, root: Path, place: Place, component: Component, package: str, to: str) -> ImageEntry:
    inside = str(path.relative_to(root))
    target = _moved(inside, to)
    if path.is_symlink() and "/" not in str(path.readlink()):
        return ImageEntry(
            place=place,
            path=target,
            component=component,
            package=package,
            link=str(path.readlink()),
            mode=0o777,
        )
    is_program = "bin/" in target or "ld-linux" in target
    return ImageEntry(
        place=place,
        path=target,
        component=component,
        package=package,
        source=path.resolve(),
        mode=0o755 if is_program else 0o644,
    )


class Libraries:
    """Every shared library of a package set, by its soname."""

    def __init__(self, found: PackageSet) -> None:
        self._where: dict[str, tuple[str, Path]] = {}
        for package, tree in found.trees.items():
            for folder in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"):
                for path in sorted((tree / "data" / folder).glob("*.so*")):
                    if path.is_file():
                        self._where.setdefault(path.name, (package, path))

    def path(self, name: str) -> Path:
        return self.locate(name)[1]

    def locate(self, name: str) -> tuple[str, Path]:
        if name not in self._where:
            raise fault(
                "not-found",
                f"no package of the set has the library {name}",
                hint="add its package to data/packages.toml",
            )
        return self._where[name]

    def read(self, name: str) -> bytes:
        return b"" if name.startswith("ld-linux") else self.path(name).read_bytes()


def with_libraries(
    found: PackageSet, entries: Iterable[ImageEntry], extra: Iterable[str] = ()
) -> list[ImageEntry]:
    """`entries` and the libraries they need: the early part's there, the rest in the root image."""
    known = list(entries)
    libraries = Libraries(found)
    placed: dict[str, ImageEntry] = {}
    for place in (Place.EARLY, Place.ROOT):
        roots = {component: _binaries(known, place, component) for component in Component}
        for component, binaries in roots.items():
            names = elf.closure(binaries, libraries.read)
            wanted = [*names, *extra] if place is Place.ROOT and component is Component.SYSTEM else names
            for name in wanted:
                if name not in placed and not name.startswith("ld-linux"):
                    placed[name] = _library(libraries, name, place, component)
    return known + list(placed.values())


def _binaries(entries: Iterable[ImageEntry], place: Place, component: Component) -> list[bytes]:
    chosen = [
        entry for entry in entries if entry.place is place and entry.component is component and entry.source
    ]
    wanted = [entry for entry in chosen if "bin/" in entry.path or fnmatch(entry.path, "*.so*")]
    return [entry.read() for entry in wanted]


def _library(libraries: Libraries, name: str, place: Place, component: Component) -> ImageEntry:
    package, path = libraries.locate(name)
    return ImageEntry(
        place=place,
        path=f"{LIBRARY_FOLDER}/{name}",
        component=component,
        package=package,
        source=path.resolve(),
    )


def certificates(found: PackageSet) -> ImageEntry:
    """Mozilla's authorities as one file."""
    root = found.trees["ca-certificates"] / "data/usr/share/ca-certificates/mozilla"
    text = b"".join(path.read_bytes().rstrip() + b"\n" for path in sorted(root.glob("*.crt")))
    return ImageEntry(
        place=Place.ROOT,
        path="share/ca-certificates.crt",
        component=Component.SYSTEM,
        package="ca-certificates",
        data=text,
    )


def configuration(found: PackageSet) -> ImageEntry:
    """How ext4 file systems are made."""
    source = found.trees["e2fsprogs"] / "data/etc/mke2fs.conf"
    return ImageEntry(
        place=Place.ROOT,
        path="share/mke2fs.conf",
        component=Component.SYSTEM,
        package="e2fsprogs",
        source=source,
    )
