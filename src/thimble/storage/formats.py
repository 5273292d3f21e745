"""What kind of file an image is, read from its own bytes. Pure.

Uploaded files are hostile until shown otherwise: a qcow2 may name a backing file or an external data file, a
VMDK may name extents, and whoever opens those reads any file of the host. So the format is decided here, by
magic, `qemu-img` is then told it with `-f` and never guesses, and whatever refers to another file is refused.
qcow2: docs/interop/qcow2.rst of QEMU; VMDK: "Virtual Disk Format 5.0"; VHD: footer of 512 bytes at the end.
"""

from __future__ import annotations

import msgspec

#: Bytes from the start that `inspect` wants; an ISO's descriptor lies at 32 KiB, a VMDK's usually at 512.
HEAD = 64 * 1024
#: Bytes from the end; a VMDK's footer lies 1024 before it.
TAIL = 1024

_SAFE_VMDK = (b"monolithicSparse", b"streamOptimized")
_AT_END = 0xFFFF_FFFF_FFFF_FFFF


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """`driver` is QEMU's name of the format; `kind` ours; `refused` why it cannot be accepted."""

    kind: str
    driver: str = "raw"
    size_bytes: int | None = None  # virtual, where the header tells
    refused: str = ""


class Qcow2(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a qcow2 header that matter to us."""

    version: int
    size_bytes: int
    backing: bool
    encrypted: bool
    external_data: bool


def qcow2(head: bytes) -> Qcow2 | None:
    """The header of a qcow2 file, or None when it is none."""
    if head[:4] != b"QFI\xfb" or len(head) < 72:
        return None
    version = _be(head, 4, 4)
    incompatible = _be(head, 72, 8) if version >= 3 and len(head) >= 80 else 0
    return Qcow2(
        version=version,
        size_bytes=_be(head, 24, 8),
        backing=_be(head, 8, 8) != 0,
        encrypted=_be(head, 32, 4) != 0,
        external_data=bool(incompatible & 4),
    )


def inspect(head: bytes, tail: bytes) -> Inspection:
    """Tell the format from the first `HEAD` and last `TAIL` bytes; anything unknown is `raw`."""
    found = qcow2(head)
    if found is not None:
        return Inspection(
            kind="qcow2", driver="qcow2", size_bytes=found.size_bytes, refused=qcow2_refusal(found)
        )
    if head[:4] == b"KDMV":
        return Inspection(kind="vmdk", driver="vmdk", refused=_vmdk_refusal(head, tail))
    if head[:4] in (b"COWD", b"QED\0") or head[:21] == b"# Disk DescriptorFile":
        return Inspection(kind="reference", refused="it refers to other files")
    if head[:8] == b"vhdxfile":
        return Inspection(kind="vhdx", driver="vhdx")
    if head[64:68] == b"\x7f\x10\xda\xbe":
        return Inspection(kind="vdi", driver="vdi")
    if tail[-512:][:8] == b"conectix":
        differencing = _be(tail[-512:], 60, 4) == 4
        return Inspection(
            kind="vpc", driver="vpc", refused="it refers to a parent disk" if differencing else ""
        )
    if head[32769:32774] == b"CD001":
        return Inspection(kind="iso")
    return Inspection(kind="raw")


def qcow2_refusal(header: Qcow2) -> str:
    """Why it cannot be used; empty when it stands alone."""
    if header.version not in (2, 3):
        return f"qcow2 version {header.version} is unknown"
    if header.backing:
        return "it refers to a backing file"
    if header.external_data:
        return "it refers to an external data file"
    if header.encrypted:
        return "it is encrypted"
    return ""


def _vmdk_refusal(head: bytes, tail: bytes) -> str:
    """QEMU takes the first `createType` wherever it stands, opens extents by their paths when the header has
    no capacity, takes a parent from the descriptor, and the descriptor's place from a footer."""
    # The embedded descriptor begins at a sector given at offset 28 and is plain text.
    capacity, place = head[12:20], head[28:36]
    start = int.from_bytes(place, "little") * 512
    text = head[start : start + 20 * 512].split(b"\0")[0]
    _, _, kind = text.partition(b"createType=")
    if text.count(b"createType") != 1 or kind.split(b"\n")[0].strip().strip(b'"') not in _SAFE_VMDK:
        return "only VMDK files of type monolithicSparse and streamOptimized stand alone"
    if b"parentFileNameHint" in text or not any(capacity):
        return "it refers to other files"
    if int.from_bytes(head[56:64], "little") == _AT_END and (
        tail[:4] != b"KDMV" or tail[12:20] != capacity or tail[28:36] not in (place, bytes(8))
    ):
        return "its footer does not fit its header"
    return ""


def _be(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "big")
