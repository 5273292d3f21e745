"""Reads what we need of an ext4 superblock. Pure. Layout: Linux Documentation/filesystems/ext4/super.rst."""

from __future__ import annotations

OFFSET = 1024
SIZE = 1024

_MAGIC = 0xEF53
_STATE_CLEAN, _STATE_ERRORS = 1, 2
_INCOMPAT_RECOVER = 0x4


class Superblock:
    """Label, UUID, and whether the file system is clean (else it is checked before it is mounted)."""

    __slots__ = ("clean", "label", "uuid")

    def __init__(self, label: str, uuid: str, clean: bool) -> None:  # noqa: FBT001
        self.label, self.uuid, self.clean = label, uuid, clean


def parse(block: bytes) -> Superblock | None:
    """The superblock in these bytes (1024, from byte 1024 on); None if there is no ext file system."""
    if len(block) < SIZE or int.from_bytes(block[0x38:0x3A], "little") != _MAGIC:
        return None
    state = int.from_bytes(block[0x3A:0x3C], "little")
    incompat = int.from_bytes(block[0x60:0x64], "little")
    return Superblock(
        label=block[0x78:0x88].split(b"\0", 1)[0].decode("utf-8", "replace"),
        uuid=block[0x68:0x78].hex(),
        clean=bool(state & _STATE_CLEAN) and not state & _STATE_ERRORS and not incompat & _INCOMPAT_RECOVER,
    )
