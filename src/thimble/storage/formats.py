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
#: Bytes from the end.
TAIL = 512

_SAFE_VMDK = (b"monolithicSparse", b"streamOptimized")


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
            kind="qcow2", driver="qcow2", size_bytes=found.size_bytes, refused=_qcow2_refusal(found)
        )
    if head[:4] == b"KDMV":
        return Inspection(kind="vmdk", driver="vmdk", refused=_vmdk_refusal(head))
    if head[:4] in (b"COWD", b"QED\0") or head[:21] == b"# Disk DescriptorFile":
        return Inspection(kind="reference", refused="it refers to other files")
    if head[:8] == b"vhdxfile":
        return Inspection(kind="vhdx", driver="vhdx")
    if head[64:68] == b"\x7f\x10\xda\xbe":
        return Inspection(kind="vdi", driver="vdi")
    if tail[:8] == b"conectix":
        differencing = _be(tail, 60, 4) == 4
        return Inspection(
            kind="vpc", driver="vpc", refused="it refers to a parent disk" if differencing else ""
        )
    if head[32769:32774] == b"CD001":
        return Inspection(kind="iso")
    return Inspection(kind="raw")


def _qcow2_refusal(header: Qcow2) -> str:
    if header.version not in (2, 3):
        return f"qcow2 version {header.version} is unknown"
    if header.backing:
        return "it refers to a backing file"
    if header.external_data:
        return "it refers to an external data file"
    if header.encrypted:
        return "it is encrypted"
    return ""


def _vmdk_refusal(head: bytes) -> str:
    # The embedded descriptor begins at a sector given at offset 28 and is plain text.
    start = int.from_bytes(head[28:36], "little") * 512
    text = head[start : start + 20 * 512]
    for line in text.splitlines():
        key, _, value = line.partition(b"=")
        if key.strip() == b"createType" and value.strip().strip(b'"') in _SAFE_VMDK:
            return ""
    return "only VMDK files of type monolithicSparse and streamOptimized stand alone"


def _be(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "big")
