"""From kernel and RAM root to all media: thimble.efi, thimble.img, thimble.iso; signed if there is a key.

A medium that is there and was made of the same inputs stays. What is here needs nothing but a folder with
`vmlinuz` and `initrd`, so an image can be signed long after it was built.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thimble.image import cache, disk, etc, iso, loaders, pack
from thimble.image.disk import DiskContents
from thimble.image.progress import Report
from thimble.image.signing import Signer
from thimble.medium import uki

FORMAT = 1
KERNEL_FILES = ("vmlinuz", "initrd")
EFI, IMG, ISO = "thimble.efi", "thimble.img", "thimble.iso"
KINDS = {"img": IMG, "iso": ISO}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """What all media of one build are made of; `words` is the command line without the build's own word."""

    folder: Path
    profile: str
    version: str
    kernel: str
    words: str
    build: str

    @property
    def command_line(self) -> str:
        return f"{self.words} thimble.build={self.build}"


def build_id(parts: list[Path]) -> str:
    """What tells this build from any other: 16 hexadecimal digits of kernel and RAM root."""
    digest = hashlib.sha256()
    for path in parts:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def make(
    packer: pack.Packer,
    image: BuiltImage,
    report: Report,
    *,
    kinds: tuple[str, ...],
    signer: Signer | None = None,
    known: Mapping[str, object] | None = None,
) -> dict[str, dict[str, object]]:
    """Write the media into the image's folder; each with bytes, bytes really used, SHA-256, and inputs.

    `known` is what the last call returned: media of the same inputs are not made again. Media that were
    not asked for are removed, because they would be of another build.
    """
    inputs = cache.key(
        FORMAT, image.build, image.words, image.version, image.kernel, packer.epoch,
        dict(packer.box.versions), signer.fingerprint if signer else "", _source_key(),
    )  # fmt: skip
    wanted = [EFI, *(KINDS[kind] for kind in kinds)]
    for name in {IMG, ISO} - set(wanted):
        (image.folder / name).unlink(missing_ok=True)
    kept = {name: entry for name in wanted if (entry := _kept(image.folder / name, inputs, known or {}))}
    if len(kept) == len(wanted):
        return kept
    with tempfile.TemporaryDirectory(prefix=".media.", dir=image.folder) as scratch:
        _make(packer, image, wanted, signer, Path(scratch), report)
        for name in wanted:
            Path(scratch, name).rename(image.folder / name)
    return {name: _described(image.folder / name, inputs) for name in wanted}


def _make(
    packer: pack.Packer,
    image: BuiltImage,
    wanted: list[str],
    signer: Signer | None,
    scratch: Path,
    report: Report,
) -> None:
    found = loaders.disk(packer, scratch)
    if signer:
        found = loaders.disk(packer, scratch, signer.signed(packer, found.systemd_boot, scratch))
    efi = scratch / EFI
    packer.uki(
        pack.UkiParts(
            kernel=image.folder / KERNEL_FILES[0],
            initrd=image.folder / KERNEL_FILES[1],
            command_line=image.command_line,
            os_release=etc.os_release(image.version, image.profile) + f"BUILD_ID={image.build}\n",
            release=image.kernel,
            loader=found.tar(packer.epoch),
        ),
        efi,
    )
    if signer:
        signer.sign(packer, efi)
    with efi.open("rb") as handle:
        read = uki.parse(handle.read(uki.HEAD_BYTES), efi.stat().st_size)
    contents = DiskContents(
        efi=efi,
        uki=read,
        command_line=image.command_line,
        version=image.version,
        build=image.build,
        loaders=found,
        keys=signer.variables if signer else {},
    )
    if IMG in wanted:
        report("media", None, IMG)
        disk.write(packer, contents, scratch / IMG, scratch)
    if ISO in wanted:
        report("media", None, ISO)
        iso.write(packer, contents, scratch / ISO, scratch)


def _source_key() -> str:
    """The bytes of the code that makes media: who works on it sees every change."""
    modules = (disk, iso, loaders, pack, etc, uki)
    texts = [Path(module.__file__ or "").read_bytes() for module in modules]
    texts += [path.read_bytes() for path in sorted(Path(uki.__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join(texts) + Path(__file__).read_bytes()).hexdigest()


def _kept(path: Path, inputs: str, known: Mapping[str, object]) -> dict[str, object] | None:
    entry = known.get(path.name)
    if not isinstance(entry, dict) or entry.get("inputs") != inputs or not path.is_file():
        return None
    return entry if entry.get("sha256") == cache.sha256(path) else None


def _described(path: Path, inputs: str) -> dict[str, object]:
    found = path.stat()
    return {
        "bytes": found.st_size,
        "used_bytes": min(found.st_size, found.st_blocks * 512),
        "sha256": cache.sha256(path),
        "inputs": inputs,
    }
