"""`thimble image sign`: the media of a built image again, with signatures a firmware can check."""

from __future__ import annotations

from pathlib import Path

from thimble.image import manifest, media, packages, signing, toolbox
from thimble.image.fault import fault
from thimble.image.pack import Packer
from thimble.image.progress import Report
from thimble.image.signing import Signer


def sign(folder: Path, signer: Signer, report: Report) -> None:
    """Sign systemd-boot and the UKI, and remake whichever media are there.

    Raises NOT_FOUND, UNSUPPORTED, and CONFLICT when kernel or RAM root are not those that were built.
    """
    image = manifest.image_of(folder)
    if media.build_id([folder / name for name in media.KERNEL_FILES]) != image.build:
        raise fault("conflict", f"{folder} is not as it was built", hint="build the image again")
    packer = Packer(box=toolbox.ensure(report), epoch=packages.read_lock().epoch)
    kinds = tuple(kind for kind, name in media.KINDS.items() if (folder / name).is_file())
    known = manifest.media_of(folder)
    manifest.replace_media(image, media.make(packer, image, report, kinds=kinds, signer=signer, known=known))


def is_trusted(folder: Path, signer: Signer) -> bool:
    """Whether the image itself accepts updates of this signer; it was built so, or was not."""
    return signing.name_of(signer.certificate) in manifest.read(folder).get("trust", [])
