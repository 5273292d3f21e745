"""What a virtual server is. Pure values; `parse_*` read the forms the command line uses."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from thimble.core.problem import Code, Problem, Reason, refuse

STATE_LABEL = "thimble-state"
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class LabFirmware(StrEnum):
    DIRECT = "direct"  # the kernel is handed over by QEMU
    UEFI = "uefi"  # OVMF starts thimble.efi from a system partition
    BIOS = "bios"  # SeaBIOS starts the first disk


class LabMedium(StrEnum):
    """The medium of an image that a server boots from."""

    DIRECT = "direct"  # QEMU hands kernel and initrd over
    EFI = "efi"  # thimble.efi alone on a system partition
    IMG = "img"  # thimble.img as a disk, of which the server writes a copy
    ISO = "iso"  # thimble.iso in a CD drive
    NONE = "none"  # it starts from its own disks, as after an installation


class Bus(StrEnum):
    VIRTIO = "virtio"
    NVME = "nvme"
    AHCI = "ahci"
    USB = "usb"


class LabDisk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Made empty with `size_bytes`, or the file named. `label` puts an ext4 file system so labelled on it.

    `forgets`: when the power is cut, what was not flushed may be lost (powerloss.py; raw disks of our own).
    `keep`: the file stays as it is, the server writes to an overlay of its own. `order`: 1 is started from
    first, 2 next; 0: the firmware finds it by itself or not. `sector`: bytes, 512 or 4096.
    """

    size_bytes: int = 0
    file: str = ""
    format: str = "raw"
    bus: Bus = Bus.VIRTIO
    label: str = ""
    read_only: bool = False
    forgets: bool = False
    cd: bool = False
    keep: bool = False
    order: int = 0
    sector: int = 512


class LabNic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A port on the user network (with forwards from 127.0.0.1), or on a wire all servers naming it share.

    `boot`: a file that the user network's DHCP names and its TFTP serves, with all that lies beside it; the
    server starts from it. `http`: UEFI starts from what DHCP on this port names, by HTTP and not by PXE;
    `pxe`: by PXE, or under BIOS by the iPXE in the card.
    """

    wire: str = ""
    model: str = "virtio-net-pci"
    forwards: tuple[int, ...] = ()
    address: str = ""  # MAC; empty: derived from server and position
    boot: str = ""
    http: bool = False
    pxe: bool = False


class ServerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = "lab"
    cpus: int = 2
    memory_mib: int = 2048
    firmware: LabFirmware = LabFirmware.DIRECT
    secure_boot: bool = False  # firmware that can do it, in setup mode: the owner's keys are not in it yet
    kernel: str = ""
    initrd: str = ""
    append: str = ""
    efi: str = ""
    disks: tuple[LabDisk, ...] = ()
    nics: tuple[LabNic, ...] = (LabNic(forwards=(443,)),)
    nested: bool = True
    display: bool = False
    oem_strings: tuple[str, ...] = ()
    watchdog: bool = False  # one that resets the server when nobody feeds it
    bmc: bool = False  # a management controller, reached by IPMI
    clock: str = ""  # what its battery clock says at power-on, `2020-01-31T12:00:00` (UTC); empty: the time


def check(spec: ServerSpec) -> None:
    """Refuse an impossible specification, with all reasons at once."""
    reasons = []

    def wrong(path: str, message: str) -> None:
        reasons.append(Reason(path=path, message=message))

    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", spec.name):
        wrong("$.name", "a name has 1 to 40 of a–z, 0–9 and -, and does not begin with -")
    if not 1 <= spec.cpus <= 64:
        wrong("$.cpus", "1 to 64")
    if not 128 <= spec.memory_mib <= 1 << 20:
        wrong("$.memory_mib", "128 to 1048576")
    if spec.firmware is LabFirmware.DIRECT and not spec.kernel:
        wrong("$.kernel", "direct boot needs a kernel")
    startable = any(disk.file for disk in spec.disks) or any(map(_starts, spec.nics))
    if spec.firmware is LabFirmware.UEFI and not spec.efi and not startable:
        wrong("$.efi", "UEFI needs a thimble.efi, a disk or a network to start from")
    if spec.firmware is LabFirmware.BIOS and not startable:
        wrong("$.disks", "BIOS needs a disk or a network to start from")
    for number, nic in enumerate(spec.nics):
        if nic.boot and nic.wire:
            wrong(f"$.nics[{number}].boot", "a wire has no TFTP server")
    for number, disk in enumerate(spec.disks):
        if bool(disk.size_bytes) == bool(disk.file):
            wrong(f"$.disks[{number}]", "a disk has either a size or a file")
        if disk.forgets and (disk.file or disk.format != "raw"):
            wrong(
                f"$.disks[{number}].forgets", "only a raw disk created by the lab can lose unflushed writes"
            )
        if disk.cd and disk.bus not in (Bus.AHCI, Bus.USB):
            wrong(f"$.disks[{number}].bus", "a CD drive is on ahci or usb")
    if spec.secure_boot and spec.firmware is not LabFirmware.UEFI:
        wrong("$.secure_boot", "needs UEFI")
    refuse(reasons, f"the virtual server {spec.name!r} cannot be created")


def _starts(nic: LabNic) -> bool:
    return bool(nic.boot or nic.http or nic.pxe)


def parse_size(text: str) -> int:
    """Bytes of "20G", "512M", "4096"."""
    match = re.fullmatch(r"(\d+)([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise Problem(Code.INVALID, f"{text!r} is not a size", hint="write it like 20G or 512M")
    return int(match[1]) * UNITS[match[2].upper()]


def parse_disk(text: str) -> LabDisk:
    """ "10G", "state:8G" (labelled as state partition), "nvme:10G", "/path/disk.qcow2", "ahci:/path",
    "keep:/path" (not written to), "cd:/path.iso", "usb:cd:/path.iso".
    """
    words, rest = [], text
    while ":" in rest and (word := rest.split(":", 1)[0]) in {*Bus, "state", "cd", "keep"}:
        words.append(word)
        rest = rest.split(":", 1)[1]
    cd = "cd" in words
    bus = next((Bus(word) for word in reversed(words) if word in {*Bus}), Bus.AHCI if cd else Bus.VIRTIO)
    if cd or "keep" in words or "/" in rest:
        form = "qcow2" if rest.endswith(".qcow2") else "raw"
        return LabDisk(file=rest, bus=bus, format=form, cd=cd, read_only=cd, keep="keep" in words)
    return LabDisk(size_bytes=parse_size(rest), bus=bus, label=STATE_LABEL if "state" in words else "")


def parse_nic(text: str) -> LabNic:
    """ "user", "user:443,22" (ports forwarded), "wire:NAME"; at its end, if wanted, ",model=e1000e"; to start
    from it ",pxe" or ",http".
    """
    model = "virtio-net-pci"
    text, pxe = text.removesuffix(",pxe"), text.endswith(",pxe")
    text, http = text.removesuffix(",http"), text.endswith(",http")
    if ",model=" in text:
        text, model = text.split(",model=", 1)
    kind, _, rest = text.partition(":")
    if kind == "wire" and rest:
        return LabNic(wire=rest, model=model, pxe=pxe, http=http)
    if kind == "user" and all(port.isdecimal() for port in rest.split(",") if port):
        return LabNic(
            forwards=tuple(int(port) for port in rest.split(",") if port), model=model, pxe=pxe, http=http
        )
    raise Problem(Code.INVALID, f"{text!r} is not a port", hint="write user, user:443,22 or wire:NAME")
