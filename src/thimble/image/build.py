"""`thimble image build`: all stages in order, each cached by the hash of its inputs.

<<<<<<< HEAD
    packages → toolbox → drivers, libraries → python → entries → early.zst, root.squashfs → initrd → thimble.efi
=======
packages → toolbox → drivers, libraries → python → entries → early.zst, root.erofs → initrd → thimble.efi
>>>>>>> main
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from thimble import __version__
from thimble.image import cache, etc, interpreter, kernel, layout, pack, packages, toolbox, tree
from thimble.image.fault import fault
from thimble.image.layout import Component, Entry, Place
from thimble.image.progress import Report

PROFILES = ("server", "virtual")
CMDLINE = "quiet loglevel=3 console=tty0 console=ttyS0,115200 panic=30"
_PROJECT = Path(__file__).resolve().parents[3]

_INIT = """#!/py/bin/python3.13 -BIS
from thimble.boot.first import main
main()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to build. `source` is the src/ directory that is packed, `web` a built web client if there is one."""

    profile: str = "virtual"
    out: Path = Path("out")
    source: Path = _PROJECT / "src"
    requirements: Path = _PROJECT / "requirements/run.txt"
    web: Path = _PROJECT / "web/dist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was built, and what of the pins could not be had."""

    directory: Path
    efi: Path
    kernel: Path
    initrd: Path
    total_bytes: int
    replaced: tuple[str, ...]


def build(options: Options, report: Report) -> Result:
    """Build one profile into `options.out`/<profile>."""
    if options.profile not in PROFILES:
        raise fault(
            "invalid",
            f"there is no profile called {options.profile}",
            hint=f"profiles: {', '.join(PROFILES)}",
        )
    box = toolbox.ensure(report)
    found = packages.ensure(options.profile, report)
    lock = packages.read_lock()
    linux = kernel.locate(found)
    chosen = kernel.choose(box, linux, options.profile, options.source, report)
    for name in chosen.unknown:
        report("drivers", None, f"this kernel has no module {name}")
    entries = layout.complete(_entries(options, box, found, linux, chosen, report))
    packer = pack.Packer(box=box, epoch=lock.epoch)
    early = _early(packer, [entry for entry in entries if entry.place is Place.EARLY], report)
    root = _root(packer, [entry for entry in entries if entry.place is Place.ROOT], report)
    first = [entry for entry in entries if entry.place is Place.FIRST]
    return _write(
        options, packer, linux, found, entries, packer.archive(first) if first else b"", early, root, report
    )


def _entries(
    options: Options,
    box: toolbox.Toolbox,
    found: packages.PackageSet,
    linux: kernel.Kernel,
    chosen: kernel.Chosen,
    report: Report,
) -> list[Entry]:
    choice = interpreter.choice()
    modules = interpreter.standard(found, choice) + interpreter.project(options.source, choice)
    modules += interpreter.libraries(interpreter.wheels(box, options.requirements, report), choice)
    files = tree.listed(found) + interpreter.compiled(box, modules, report)
    made = tree.with_libraries(found, files)
    made += [tree.certificates(found), tree.configuration(found)]
    made += kernel.entries(linux, chosen) + kernel.blobs(found, chosen) + kernel.microcode(found)
    made += etc.entries(__version__, options.profile)
    made.append(
        Entry(place=Place.EARLY, path="init", component=Component.THIMBLE, data=_INIT.encode(), mode=0o755)
    )
    return made + _web(options.web)


def _web(folder: Path) -> list[Entry]:
    return [
        Entry(
            place=Place.ROOT,
            path=f"share/thimble/web/{path.relative_to(folder)}",
            component=Component.WEB,
            package="thimble",
            source=path,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def _fingerprint(entries: Iterable[Entry]) -> list[list[object]]:
    return [
        [
            entry.path,
            entry.mode,
            entry.link,
            "" if entry.is_directory or entry.link else hashlib.sha256(entry.read()).hexdigest(),
        ]
        for entry in entries
    ]


def _early(packer: pack.Packer, entries: list[Entry], report: Report) -> Path:
    """The compressed archive that becomes the RAM root."""
    key = cache.key(
        "early", 1, packer.epoch, pack.EARLY_LEVEL, packer.box.versions["zstd"], _fingerprint(entries)
    )

    def make(into: Path) -> None:
        report("early", None, f"compressing {len(entries)} entries")
        plain = into / "early.cpio"
        plain.write_bytes(packer.archive(entries, [kernel.console_node()]))
        packer.compress(plain, into / "early.cpio.zst")
        plain.unlink()

    return cache.directory(cache.root() / "stages" / f"early-{key}", make) / "early.cpio.zst"


def _root(packer: pack.Packer, entries: list[Entry], report: Report) -> Path:
    """The compressed file system that becomes /usr."""
    versions = packer.box.versions["squashfs-tools"]
    key = cache.key("root", 1, packer.epoch, pack.ROOT_OPTIONS, versions, _fingerprint(entries))

    def make(into: Path) -> None:
        report("root", None, f"packing {len(entries)} entries")
        packer.squashfs(entries, into / "tree", into / "root.squashfs")

    return cache.directory(cache.root() / "stages" / f"root-{key}", make) / "root.squashfs"


def _write(
    options: Options,
    packer: pack.Packer,
    linux: kernel.Kernel,
    found: packages.PackageSet,
    entries: list[Entry],
    first: bytes,
    early: Path,
    root: Path,
    report: Report,
) -> Result:
    out = options.out / options.profile
    out.mkdir(parents=True, exist_ok=True)
    report("image", None, f"writing {out}")
    cache.write(out / "initrd", b"".join(pack.initrd(first, early.read_bytes(), root)))
    cache.write(out / "vmlinuz", linux.image.read_bytes())
    scratch = out / ".thimble.efi"
    packer.uki(
        out / "vmlinuz",
        out / "initrd",
        CMDLINE,
        etc.os_release(__version__, options.profile),
        linux.release,
        scratch,
    )
    scratch.rename(out / "thimble.efi")
    total = (out / "vmlinuz").stat().st_size + (out / "initrd").stat().st_size
    report("image", 1.0, f"{total / 1e6:.1f} MB")
    return Result(
        directory=out,
        efi=out / "thimble.efi",
        kernel=out / "vmlinuz",
        initrd=out / "initrd",
        total_bytes=total,
        replaced=found.replaced,
    )
