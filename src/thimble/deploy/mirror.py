"""Boot partitions of a mirrored installation: how another one differs from ours, and how it is made the same.

Pure. Every change is a list of small ones, in an order that never leaves a slot half written and startable.
"""

from __future__ import annotations

from thimble.deploy.boot_files import Delete, Esp, Op, Put, PutImage
from thimble.medium import loader


def differences(truth: Esp, other: Esp) -> str:
    """Why `other` does not start what `truth` starts, in words; empty when it does."""
    for slot in loader.SLOTS:
        path = loader.slot_path(slot)
        if truth.files.get(path) != other.files.get(path) or truth.manifests.get(slot) != other.manifests.get(
            slot
        ):
            return f"slot {slot} is another one there"
    if _shared(truth) != _shared(other):
        return "its loader starts something else"
    return ""


def follow(truth: Esp, other: Esp) -> tuple[Op, ...]:
    """Make `other` what `truth` is: first nothing there starts what is being replaced, at last the choice."""
    images = [path for slot in loader.SLOTS if (path := loader.slot_path(slot)) in truth.files]
    changed = [
        path
        for path in images
        if truth.files[path] != other.files.get(path)
        or truth.manifests.get(path[8]) != other.manifests.get(path[8])
    ]
    wanted, found = _shared(truth), _shared(other)
    entry = f"{loader.ENTRIES}/"
    ops: list[Op] = [
        Delete(path=path)
        for path in sorted(found)
        if path.startswith(entry) and (changed or found[path] != wanted.get(path))
    ]
    for path in changed:
        parts = (path, path.replace(".efi", ".cfg"), path.replace(".efi", ".json"))
        ops += [Delete(path=part) for part in reversed(parts) if part in other.files]
        ops.append(PutImage(path=path))
    deleted = {op.path for op in ops if isinstance(op, Delete)}
    missing = [path for path in wanted if path in deleted or found.get(path) != wanted[path]]
    missing.sort(key=lambda path: (path == loader.ENVIRONMENT, path.startswith(entry), path))
    ops += [Put(path=path, data=wanted[path]) for path in missing]
    ops += [Delete(path=path) for path in sorted(set(found) - set(wanted)) if path not in deleted]
    gone = {loader.slot_path(slot) for slot in loader.SLOTS} - set(images)
    return (*ops, *(Delete(path=path) for path in sorted(gone) if path in other.files))


def _shared(esp: Esp) -> dict[str, bytes]:
    """The small files of ours that both devices of a mirror have."""
    ours = ("thimble/", "loader/", "grub/", "EFI/BOOT/BOOTX64.EFI")
    return {path: data for path, data in esp.small.items() if path.startswith(ours)}
