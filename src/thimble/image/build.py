"""`thimble image build`: all stages in order, each cached by the hash of its inputs.

packages → toolbox → drivers, libraries → python → entries
         → early.zst, root.squashfs → initrd → thimble.efi → thimble.img, thimble.iso
"""

from __future__ import annotations

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
    manifest,
    media,
    pack,
    packages,
    sbom,
    signing,
    stages,
    toolbox,
    tree,
)
from thimble.image.fault import fault
from thimble.image.layout import Component, ImageEntry, Place
from thimble.image.progress import Report
from thimble.image.signing import Signer

PROFILES = ("server", "virtual")
#: `lsm=`: no AppArmor, IMA and the like, which nothing here has a policy for (docs/decisions/0013).
CMDLINE = (
    "quiet loglevel=3 rootfstype=ramfs console=tty0 console=ttyS0,115200 panic=30"
    " lsm=lockdown,yama,landlock audit=0"
)
_PROJECT = Path(__file__).resolve().parents[3]

_INIT = """#!/py/bin/python3.13 -BIS
from thimble.boot.stage1 import main
main()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What to build. `source` is the src/ directory that is packed, `web` a built web client if any.

    `trust` are certificates (PEM) whose updates the image accepts; a signer's own is always one of them.
    """

    profile: str = "virtual"
    out: Path = Path("out")
    source: Path = _PROJECT / "src"
    requirements: Path = _PROJECT / "requirements/run.txt"
    web: Path = _PROJECT / "web/dist"
    media: tuple[str, ...] = tuple(media.KINDS)
    signer: Signer | None = None
    trust: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
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


def build(options: BuildOptions, report: Report) -> BuildResult:
    """Build one profile into `options.out`/<profile>."""
    if options.profile not in PROFILES:
        raise fault(
            "invalid",
            f"there is no profile called {options.profile}",
            hint=f"profiles: {', '.join(PROFILES)}",
        )
    _check(options)
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


def _check(options: BuildOptions) -> None:
    """Refuse at once what would fail after minutes."""
    if unknown := set(options.media) - set(media.KINDS):
        raise fault(
            "invalid",
            f"there is no medium called {', '.join(sorted(unknown))}",
            hint=f"media: {', '.join(media.KINDS)}",
        )
    for path in options.trust:
        signing.check_certificate(path)


def _entries(
    options: BuildOptions,
    box: toolbox.Toolbox,
    found: packages.PackageSet,
    linux: kernel.Kernel,
    chosen: kernel.Chosen,
    report: Report,
) -> list[ImageEntry]:
    choice = interpreter.choice()
    modules = interpreter.standard(found, choice) + interpreter.project(options.source, choice)
    modules += interpreter.libraries(interpreter.wheels(box, options.requirements, report), choice)
    files = tree.listed(found) + interpreter.compiled(box, modules, report)
    made = tree.with_libraries(found, files)
    made += [tree.certificates(found), tree.configuration(found)]
    made += kernel.entries(linux, chosen) + kernel.blobs(found, chosen) + kernel.microcode(found)
    made += etc.entries(__version__, options.profile)
    made.append(
        ImageEntry(
            place=Place.EARLY, path="init", component=Component.THIMBLE, data=_INIT.encode(), mode=0o755
        )
    )
    return made + _web(options.web) + _trusted(options)


def _certificates(options: BuildOptions) -> dict[str, bytes]:
    """Those the image trusts, each under its own name: in which order they were given does not matter."""
    paths = [*options.trust, *([options.signer.certificate] if options.signer else [])]
    return {signing.name_of(path): path.read_bytes() for path in paths}


def _trusted(options: BuildOptions) -> list[ImageEntry]:
    return [
        ImageEntry(
            place=Place.ROOT,
            path=f"share/thimble/trust/{name}.pem",
            component=Component.THIMBLE,
            data=text,
        )
        for name, text in sorted(_certificates(options).items())
    ]


def _web(folder: Path) -> list[ImageEntry]:
    return [
        ImageEntry(
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
    options: BuildOptions,
    packer: pack.Packer,
    linux: kernel.Kernel,
    found: packages.PackageSet,
    packed: stages.Packed,
    shares: list[footprint.Share],
    report: Report,
) -> BuildResult:
    out = options.out / options.profile
    out.mkdir(parents=True, exist_ok=True)
    report("image", None, f"writing {out}")
    cache.write(out / "initrd", b"".join(pack.initrd(packed.first, packed.early.read_bytes(), packed.root)))
    cache.write(out / "vmlinuz", linux.image.read_bytes())
    image = media.BuiltImage(
        folder=out,
        profile=options.profile,
        version=__version__,
        kernel=linux.release,
        words=CMDLINE,
        build=media.build_id([out / name for name in media.KERNEL_FILES]),
    )
    made = media.make(
        packer, image, report, kinds=options.media, signer=options.signer, known=manifest.media_of(out)
    )
    whole = [footprint.kernel_share(linux.package, linux.image.read_bytes()), *shares]
    described = sbom.describe(found, {name for share in whole for name in share.packages})
    components = [footprint.plain(share, described) for share in whole]
    totals = footprint.counted(whole), footprint.apart(whole)
    manifest.write(
        image,
        made,
        epoch=packer.epoch,
        totals=totals,
        components=components,
        replaced=found.replaced,
        trust=sorted(_certificates(options)),
    )
    bill = sbom.document(described, options.profile, packer.epoch)
    cache.write(out / "thimble.spdx.json", manifest.encoded(bill))
    report("image", 1.0, f"{totals[0] / 1e6:.1f} MB, and {totals[1] / 1e6:.1f} MB of makers' blobs")
    return BuildResult(
        directory=out,
        efi=out / "thimble.efi",
        kernel=out / "vmlinuz",
        initrd=out / "initrd",
        total_bytes=totals[0],
        blob_bytes=totals[1],
        replaced=found.replaced,
    )
