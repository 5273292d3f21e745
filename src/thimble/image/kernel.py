"""The kernel's part of the image: its file, the chosen modules, PID 1's table, firmware, microcode."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from thimble.image import cache, cpio, drivers
from thimble.image.fault import fault
from thimble.image.layout import Component, ImageEntry, Place
from thimble.image.packages import PackageSet
from thimble.image.progress import Report
from thimble.image.toolbox import Toolbox

_TABLE = """
import marshal, pathlib, sys
sys.path.insert(0, sys.argv[1])
from thimble.boot.devices.driver_table import compile_table
folder = pathlib.Path(sys.argv[2])
texts = [(folder / name).read_text() for name in ("modules.dep", "modules.alias", "modules.softdep")]
(folder / "thimble.drivers").write_bytes(marshal.dumps(compile_table(*texts)))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel package."""

    package: str
    release: str
    tree: Path

    @property
    def image(self) -> Path:
        return self.tree / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.tree / "usr/lib/modules" / self.release


def locate(found: PackageSet) -> Kernel:
    """The kernel of a package set."""
    for package, tree in found.trees.items():
        for path in sorted((tree / "data/boot").glob("vmlinuz-*")):
            return Kernel(package=package, release=path.name.removeprefix("vmlinuz-"), tree=tree / "data")
    raise fault("not-found", "the package set has no kernel", hint="see data/packages.toml")


def _depmod(box: Toolbox, base: Path, release: str) -> None:
    subprocess.run(box.argv("depmod", "--basedir", str(base), release), check=True, capture_output=True)


def graph(box: Toolbox, kernel: Kernel) -> drivers.Graph:
    """What the whole kernel's modules need of each other."""

    def make(into: Path) -> None:
        target = into / "lib/modules" / kernel.release
        target.parent.mkdir(parents=True)
        shutil.copytree(
            kernel.modules,
            target,
            symlinks=True,
            copy_function=_link,
            ignore=shutil.ignore_patterns("build", "source"),
        )
        _depmod(box, into, kernel.release)
        shutil.rmtree(target / "kernel")

    stage = cache.directory(
        cache.root() / "stages" / f"depmod-{cache.key('depmod', 1, str(kernel.tree))}", make
    )
    folder = stage / "lib/modules" / kernel.release
    return drivers.graph(
        (folder / "modules.dep").read_text(),
        (folder / "modules.softdep").read_text(),
        (folder / "modules.alias").read_text() + (folder / "modules.symbols").read_text(),
        (kernel.modules / "modules.builtin").read_text(),
    )


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def unpacked(path: Path) -> bytes:
    """A module's bytes without its own compression."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The modules of one profile, staged."""

    stage: Path
    names: tuple[str, ...]
    early: tuple[str, ...]
    unknown: tuple[str, ...]
    firmware: tuple[str, ...]


def choose(box: Toolbox, kernel: Kernel, profile: str, source: Path, report: Report) -> Chosen:
    """Stage the profile's modules: depmod over exactly these, and PID 1's driver table."""
    wanted = drivers.wanted(profile)
    whole = graph(box, kernel)
    names, unknown = drivers.closure(whole, wanted.modules)
    # A source without it is no Thimble: better no image than one without drivers.
    table = source / "thimble/boot/devices/driver_table.py"
    inputs = [names, sorted(wanted.plain), str(kernel.tree), cache.sha256(table)]
    stage = cache.root() / "stages" / f"drivers-{cache.key('drivers', 4, inputs)}"

    def make(into: Path) -> None:
        report("drivers", None, f"{len(names)} modules of {kernel.release}")
        folder = into / "lib/modules" / kernel.release
        firmware: set[str] = set()
        for name in names:
            path = whole.paths[name]
            data = unpacked(kernel.modules / path)
            firmware.update(drivers.firmware(data))
            target = folder / (path.removesuffix(".xz") if name in wanted.plain else path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data if name in wanted.plain else (kernel.modules / path).read_bytes())
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            shutil.copy(kernel.modules / name, folder / name)
        _depmod(box, into, kernel.release)
        box.python(_TABLE, str(source), str(folder))
        (into / "firmware").write_text("".join(f"{name}\n" for name in sorted(firmware)))

    cache.directory(stage, make)
    return Chosen(
        stage=stage,
        names=names,
        early=drivers.load_order(whole, wanted.early),
        unknown=unknown,
        firmware=tuple((stage / "firmware").read_text().splitlines()),
    )


def entries(kernel: Kernel, chosen: Chosen) -> list[ImageEntry]:
    """Modules and table in the root image; those the root image itself needs in the early part."""
    folder = chosen.stage / "lib/modules" / kernel.release
    made = []
    for path in sorted((folder / "kernel").rglob("*.ko*")):
        name = drivers.plain_name(path.name)
        inside = f"lib/modules/{kernel.release}/{path.relative_to(folder)}"
        made.append(
            ImageEntry(
                place=Place.ROOT,
                path=inside,
                component=Component.DRIVERS,
                package=kernel.package,
                source=path,
            )
        )
        if name in chosen.early:
            number = chosen.early.index(name)
            made.append(
                ImageEntry(
                    place=Place.EARLY,
                    path=f"modules/{number:02}-{name}.ko",
                    component=Component.DRIVERS,
                    package=kernel.package,
                    data=unpacked(path),
                )
            )
    table = folder / "thimble.drivers"
    made.append(
        ImageEntry(
            place=Place.ROOT,
            path=f"lib/modules/{kernel.release}/{table.name}",
            component=Component.DRIVERS,
            source=table,
        )
    )
    return made


def blobs(found: PackageSet, chosen: Chosen) -> list[ImageEntry]:
    """The firmware the chosen drivers ask for, as far as Debian has it, under the name they ask for."""
    made = []
    roots = {name: tree / "data/usr/lib/firmware" for name, tree in found.trees.items()}
    for name in chosen.firmware:
        for package, root in roots.items():
            path = root / name
            if path.is_file():
                made.append(
                    ImageEntry(
                        place=Place.ROOT,
                        path=f"lib/firmware/{name}",
                        component=Component.BLOBS,
                        package=package,
                        source=path,
                    )
                )
                break
    return made


def microcode(found: PackageSet) -> list[ImageEntry]:
    """Both makers' CPU microcode in the form the kernel reads before it unpacks anything."""
    made = []
    for package, pattern, target in (
        ("intel-microcode", "intel-ucode/??-??-??", "GenuineIntel.bin"),
        ("amd64-microcode", "amd-ucode/microcode_amd*.bin", "AuthenticAMD.bin"),
    ):
        if package not in found.trees:
            continue
        parts = sorted((found.trees[package] / "data/usr/lib/firmware").glob(pattern))
        made.append(
            ImageEntry(
                place=Place.FIRST,
                path=f"kernel/x86/microcode/{target}",
                component=Component.MICROCODE,
                package=package,
                data=b"".join(path.read_bytes() for path in parts),
            )
        )
    return made


def console_node() -> cpio.CpioEntry:
    """/dev/console, so that even the first line of PID 1 has somewhere to go."""
    return cpio.CpioEntry(path="dev/console", mode=0o20600, device=(5, 1))
