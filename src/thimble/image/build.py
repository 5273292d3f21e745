"""`thimble image build`: all stages in order, each cached by the hash of its inputs.

packages → toolbox → drivers, libraries → python → entries
         → early.zst, root.squashfs → initrd → thimble.efi
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from thimble import __version__
from thimble.image import (
    cache,
    etc,
    footprint,
    interpreter,
    kernel,
    layout,
    pack,
    packages,
    sbom,
    stages,
    toolbox,
    tree,
)
from thimble.image.fault import fault
from thimble.image.layout import Component, Entry, Place
from thimble.image.progress import Report

PROFILES = ("server", "virtual")
#: `lsm=`: no AppArmor, IMA and the like, which nothing here has a policy for (docs/decisions/0013).
CMDLINE = (
    "quiet loglevel=3 rootfstype=ramfs console=tty0 console=ttyS0,115200 panic=30"
    " lsm=lockdown,yama,landlock audit=0"
)
_PROJECT = Path(__file__).resolve().parents[3]

_INIT = """#!/py/bin/python3.13 -BIS
from thimble.boot.first import main
main()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to build. `source` is the src/ directory that is packed, `web` a built web client if any."""

    profile: str = "virtual"
    out: Path = Path("out")
    source: Path = _PROJECT / "src"
    requirements: Path = _PROJECT / "requirements/run.txt"
    web: Path = _PROJECT / "web/dist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was built, and what of the pins could not be had.

    `total_bytes` is kernel, RAM root and QEMU's firmware; `blob_bytes` is what makers of NICs and CPUs add.
    """

    directory: Path
    efi: Path
    kernel: Path
    initrd: Path
    total_bytes: int
    blob_bytes: int
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
    packed = stages.pack_all(packer, entries, report)
    return _write(options, packer, linux, found, packed, footprint.components(entries, packed), report)


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


def _write(
    options: Options,
    packer: pack.Packer,
    linux: kernel.Kernel,
    found: packages.PackageSet,
    packed: stages.Packed,
    shares: list[footprint.Share],
    report: Report,
) -> Result:
    out = options.out / options.profile
    out.mkdir(parents=True, exist_ok=True)
    report("image", None, f"writing {out}")
    cache.write(out / "initrd", b"".join(pack.initrd(packed.first, packed.early.read_bytes(), packed.root)))
    cache.write(out / "vmlinuz", linux.image.read_bytes())
    scratch = out / ".thimble.efi"
    release = etc.os_release(__version__, options.profile)
    packer.uki(out / "vmlinuz", out / "initrd", CMDLINE, release, linux.release, scratch)
    scratch.rename(out / "thimble.efi")
    whole = [footprint.kernel_share(linux.package, linux.image.read_bytes()), *shares]
    described = sbom.describe(found, {name for share in whole for name in share.packages})
    manifest = _manifest(options, packer, linux, found, whole, described, out)
    cache.write(out / "manifest.json", _json(manifest))
    cache.write(out / "thimble.spdx.json", _json(sbom.document(described, options.profile, packer.epoch)))
    result = Result(
        directory=out,
        efi=out / "thimble.efi",
        kernel=out / "vmlinuz",
        initrd=out / "initrd",
        total_bytes=footprint.counted(whole),
        blob_bytes=footprint.apart(whole),
        replaced=found.replaced,
    )
    report(
        "image",
        1.0,
        f"{result.total_bytes / 1e6:.1f} MB, and {result.blob_bytes / 1e6:.1f} MB of makers' blobs",
    )
    return result


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _manifest(
    options: Options,
    packer: pack.Packer,
    linux: kernel.Kernel,
    found: packages.PackageSet,
    shares: list[footprint.Share],
    described: dict[str, sbom.Part],
    out: Path,
) -> dict[str, object]:
    """What `inspect` reads: the footprint, the files with their hashes, and what was not as pinned."""
    names = ("thimble.efi", "vmlinuz", "initrd")
    files = {
        name: {"bytes": (out / name).stat().st_size, "sha256": cache.sha256(out / name)} for name in names
    }
    return {
        "format": 1,
        "profile": options.profile,
        "version": __version__,
        "kernel": linux.release,
        "command_line": CMDLINE,
        "epoch": packer.epoch,
        "total_bytes": footprint.counted(shares),
        "blob_bytes": footprint.apart(shares),
        "components": [footprint.plain(share, described) for share in shares],
        "files": files,
        "replaced": list(found.replaced),
    }
