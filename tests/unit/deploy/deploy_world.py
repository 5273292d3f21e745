"""Images, boot partitions in directories, and loaders that choose as systemd-boot and GRUB do."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from pathlib import Path

from thimble.deploy import esp, slots
from thimble.deploy.esp import Source
from thimble.deploy.image import Image, inspect
from thimble.medium import loader

BIOS, UEFI = slots.BIOS, slots.UEFI


def image_bytes(
    *,
    version: str = "0.1.0",
    kernel: bytes = b"kernel",
    initrd: bytes = b"initrd",
    build: str = "",
    machine: int = 0x8664,
    name: str = "thimble",
    loaders: bool = True,
) -> bytes:
    """A whole thimble.efi, but for code that could run."""
    build = build or hashlib.sha256(kernel + initrd).hexdigest()[:16]
    sections = {
        ".osrel": f'ID={name}\nPRETTY_NAME="{name}"\nVERSION_ID={version}\n'.encode(),
        ".cmdline": f"quiet thimble.build={build}\0".encode(),
        ".linux": kernel,
        ".initrd": initrd,
    }
    if loaders:
        sections[".loader"] = _tar()
    optional = bytes(112) + bytes(16 * 8)
    head = bytearray(b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40))
    head += b"PE\0\0" + struct.pack("<HHIIIHH", machine, len(sections), 0, 0, 0, len(optional), 0) + optional
    body, at = b"", 1024
    for section, data in sections.items():
        padded = data.ljust(-(-len(data) // 512) * 512, b"\0")
        head += section.encode().ljust(8, b"\0")
        head += struct.pack("<IIII", len(data), 0, len(padded), at) + bytes(16)
        body, at = body + padded, at + len(padded)
    return bytes(head).ljust(1024, b"\0") + body


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, size in (("systemd-bootx64.efi", 3000), ("boot.img", 512), ("core.img", 2000)):
            entry = tarfile.TarInfo(name)
            entry.size = size
            tar.addfile(entry, io.BytesIO(name.encode().ljust(size, b".")))
    return out.getvalue()


def made(path: Path, **options: str | bytes) -> Image:
    """An image in a file, inspected."""
    path.write_bytes(image_bytes(**options))  # type: ignore[arg-type]
    return inspect(path)


def apply(root: Path, ops: tuple[slots.Op, ...], image: Image | None = None) -> None:
    images = {}
    if image is not None:
        images = {f"thimble/{slot}.efi": Source(path=image.path, sha256=image.sha256) for slot in "ab"}
    esp.apply(root, ops, images=images)


def stick(root: Path, image: Image) -> Path:
    """A new boot partition."""
    root.mkdir()
    apply(root, slots.fresh(image.manifest, image.menu("a"), systemd_boot=b"boot"), image)
    return root


def starts(root: Path, firmware: str) -> str:
    """The slot the loader starts from this boot partition; it counts as the real ones do."""
    return _grub(root) if firmware == BIOS else _systemd_boot(root)


def _systemd_boot(root: Path) -> str:
    found = []
    for path in sorted((root / loader.ENTRIES).glob("*.conf")):
        entry, text = loader.parse_entry(path.name), path.read_text()
        if entry is None or "efi /" not in text:
            continue
        found.append((entry.left != 0, loader.entry_number(text), entry.slot, entry, path))
    while found:
        best = max(found, key=lambda one: one[:3])
        found.remove(best)
        *_, slot, entry, path = best
        if entry.left:
            counted = loader.Entry(slot=slot, left=entry.left - 1, done=entry.done + 1)
            path.rename(path.with_name(counted.name))
        if whole(root, slot):
            return slot
    return ""


def _grub(root: Path) -> str:
    choice = loader.parse_environment((root / loader.ENVIRONMENT).read_bytes())
    slot = choice.default
    if choice.trial and choice.tries:
        slot = choice.trial
        counted = loader.Choice(default=choice.default, trial=slot, tries=choice.tries - 1)
        (root / loader.ENVIRONMENT).write_bytes(loader.environment(counted))
    for each in (slot, loader.other(slot)):
        if (root / f"thimble/{each}.cfg").is_file() and whole(root, each):
            return each
    return ""


def whole(root: Path, slot: str) -> bool:
    """Is the slot's file one that starts? Half of one counts as one that does not."""
    path = root / loader.slot_path(slot)
    try:
        return path.is_file() and bool(inspect(path).build)
    except Exception:
        return False
