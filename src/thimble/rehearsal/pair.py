"""Two images to go to and fro between: the built one, and one that differs in nothing but its build."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from thimble.image import keys, manifest, media, packages, signing, toolbox
from thimble.image.pack import Packer
from thimble.image.progress import Report

#: The kernel takes zeros after the last archive for nothing.
PADDING = bytes(512)
NAMES = ("a.efi", "b.efi")


def make(built: Path, images: Path, report: Report) -> Path:
    """Put both, signed with a new key, among the images; the key's certificate."""
    keys.make(images / "keys", report, name="Rehearsal")
    signer = signing.from_folder(images / "keys")
    packer = Packer(box=toolbox.ensure(report), epoch=packages.read_lock().epoch)
    original = manifest.image_of(built)
    for name, padding in zip(NAMES, (b"", PADDING), strict=True):
        folder = images / f"of-{name}"
        folder.mkdir()
        for part in media.KERNEL_FILES:
            shutil.copyfile(built / part, folder / part)
        with (folder / "initrd").open("ab") as file:
            file.write(padding)
        build = media.build_id([folder / part for part in media.KERNEL_FILES])
        image = dataclasses.replace(original, folder=folder, build=build)
        media.make(packer, image, report, kinds=(), signer=signer)
        (folder / media.EFI).rename(images / name)
        shutil.rmtree(folder)
    return images / "keys" / "db.crt"
