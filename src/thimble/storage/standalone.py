"""The rule that volumes and images stand alone: no backing file, no external data file, no extents. Pure.

The only place that says so. A file from another host, or copied here by hand, may name any file of this one,
so whatever is uploaded, copied or given to QEMU is asked first. Layers (snapshots, linked clones) will turn
the rule round here: a volume may then have the backing file that its record's `parent` names, and no other.
"""

from __future__ import annotations

from thimble.contract.vm import DiskFormat
from thimble.storage import formats
from thimble.storage.formats import Inspection

#: Bytes of a volume's start that `volume_refusal` wants.
HEAD = 104
#: Formats that are accepted by upload alone, which converts what their headers say into a record.
_UPLOADED = ("vmdk", "vhdx", "vdi", "vpc")


def volume_refusal(head: bytes, format: DiskFormat) -> str:
    """Why a volume whose first bytes are `head` cannot be used; empty when it stands alone."""
    header = formats.qcow2(head) if format is DiskFormat.QCOW2 else None  # raw: the guest's own bytes
    return formats.qcow2_refusal(header) if header else ""


def upload_refusal(found: Inspection, length: int) -> str:
    """Why an uploaded file of `length` bytes cannot be accepted."""
    if found.driver == "vmdk" and length % 512:
        return "it does not end with a whole sector"  # QEMU would look for its footer elsewhere
    return found.refused


def image_refusal(found: Inspection, length: int, kind: str, driver: str) -> str:
    """Why an image cannot be used that the file beside it calls `kind`: that may be another host's word."""
    differs = "" if found.driver == driver else f"it is {found.kind}, not {kind}"
    return upload_refusal(found, length) or differs


def unknown_refusal(found: Inspection, length: int) -> str:
    """Why an image that was put there by hand cannot be used."""
    return upload_refusal(found, length) or ("it was not uploaded" if found.kind in _UPLOADED else "")


def info_refusal(backing_file: str) -> str:
    """The same, of what `qemu-img info` found."""
    return "it refers to a backing file" if backing_file else ""


def node_options(format: str) -> dict[str, object]:
    """What a block node of QEMU is told, so that it does not believe a header's word on a backing file."""
    return {"backing": None} if format == "qcow2" else {}
