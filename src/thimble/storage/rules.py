"""What names, references, sizes and specs of storage are acceptable. Pure."""

from __future__ import annotations

from thimble.contract.vm import DiskSpec
from thimble.core.ids import NAME_MAX, name_reasons
from thimble.core.problem import Code, Reason
from thimble.core.units import MIB, TIB, show_size
from thimble.storage.records import ImageFacts
from thimble.storage.refs import Ref

SECTOR = 512
#: ext4 itself ends at 16 TiB per file for raw; qcow2 goes on, but nobody has asked yet.
SIZE_MAX = 64 * TIB
#: What is left free for records, however full the images make a datastore.
RESERVE = 16 * MIB
_IMAGE_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._+~")


def image_name_reasons(name: str, path: str) -> list[Reason]:
    """As other names, but capitals, '+' and '~' are fine: file names of images come with them."""
    if not 1 <= len(name) <= 4 * NAME_MAX - 16 or not set(name) <= _IMAGE_NAME or not name[0].isalnum():
        return [
            Reason(
                message=f"{name!r}: use letters, digits, '-', '.', '_', '+', starting with a letter or digit",
                path=path,
            )
        ]
    if name.endswith(".json"):
        return [Reason(message=f"{name!r}: a name may not end in .json", path=path)]
    return []


def volume_name_reasons(name: str, path: str) -> list[Reason]:
    """A name of our kind that cannot be mistaken for a disk in a VM's directory (`vm-….disk0`)."""
    found = name_reasons(name, path)
    if not found and Ref("", name).vm_disk is not None:
        found.append(Reason(message=f"{name!r}: names such as vm-….… are those of VMs' own disks", path=path))
    return found


def size_reasons(size: int, path: str) -> list[Reason]:
    """A disk has whole sectors, at least one."""
    if size % SECTOR or size < SECTOR:
        return [Reason(message=f"a disk size is a multiple of {SECTOR} bytes, {size} is not", path=path)]
    if size > SIZE_MAX:
        return [Reason(message=f"a disk has at most {show_size(SIZE_MAX)}", path=path)]
    return []


def new_disk_reasons(
    size: int | None, image: ImageFacts | None, *, wants_image: bool, free: int, path: str
) -> list[Reason]:
    """Why an empty disk of `size`, or a copy of `image` grown to it, cannot be made with `free` bytes."""
    if size is None and not wants_image:
        return [Reason(message="a new disk needs size_bytes or an image to copy", path=f"{path}.size_bytes")]
    found = size_reasons(size, f"{path}.size_bytes") if size is not None else []
    if image is None:
        return found
    if size is not None and size < image.size_bytes:
        found.append(
            Reason(
                message=f"smaller than the image, which has {show_size(image.size_bytes)}",
                path=f"{path}.size_bytes",
            )
        )
    if image.used_bytes > free - RESERVE:
        found.append(no_room(image.used_bytes, free, f"{path}.image"))
    return found


def no_room(needed: int, free: int, path: str) -> Reason:
    return Reason(
        message=f"needs {show_size(needed)}, and {show_size(max(0, free - RESERVE))} are free",
        code=Code.NO_SPACE,
        path=path,
    )


def disk_reasons(spec: DiskSpec, path: str) -> list[Reason]:
    """Fields of a disk that contradict each other."""
    if spec.volume is None:
        return []
    return [
        Reason(message=f"{field} does not go with volume: that exists already", path=f"{path}.{field}")
        for field, given in (("image", spec.image), ("size_bytes", spec.size_bytes))
        if given is not None
    ]


def overcommit(size: int, promised: int, free: int, name: str) -> list[str]:
    """A warning when sparse disks may outgrow what is free.

    `promised`: what the volumes that are there may still grow by.
    """
    if size + promised <= free:
        return []
    others = f", the volumes there by {show_size(promised)} more" if promised else ""
    grows = f"{name} may grow to {show_size(size)}{others}"
    return [f"{grows}, and {show_size(free)} are free: the datastore can fill up"]
