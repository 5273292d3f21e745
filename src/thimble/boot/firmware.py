"""What firmware and boot loader report: Secure Boot, the slot, whether this is a trial boot, the boot medium.

`read` runs in a job child after readiness: it loads a driver and asks the firmware. The rest is pure.
Variables: UEFI specification (SecureBoot), the Boot Loader Interface (LoaderEntrySelected,
LoaderDevicePartUUID). On trial, an entry's file name has a boot counter, `thimble-b+2-1.conf`, which is in
LoaderBootCountPath then; LoaderEntrySelected is without the count.
"""

from __future__ import annotations

import os

from . import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .devices.modalias import DriverTable
    from .disks.blocks import BlockDevice

EFI = "/sys/firmware/efi"
VARIABLES = f"{EFI}/efivars"
BOOT_PART = "thimble-boot"
CD_LABEL = "THIMBLE-CD"
_GLOBAL, _LOADER = "8be4df61-93ca-11d2-aa0d-00e098032b8c", "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
_FLAGS = linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC


class LoaderFacts:
    """What the firmware's variables say; `device` is the GUID of the partition that was booted from."""

    __slots__ = ("device", "entry", "firmware", "secure")

    def __init__(
        self, firmware: str = "", *, secure: bool = False, entry: str = "", device: str = ""
    ) -> None:
        self.firmware, self.secure, self.entry, self.device = firmware, secure, entry, device


def read(table: DriverTable, named: str) -> list[Any]:
    """The fields of a `LoaderFacts`, and the device with that partition GUID.

    `named`: the partition GUID given on the kernel command line (set by GRUB and kexec).
    """
    named = named.lower()
    if not os.path.isdir(EFI):
        return ["bios", 0, "", named, find_partition(named)]
    from .devices.drivers import load

    load(table, ("efivarfs",))
    if not os.path.ismount(VARIABLES):
        linux.mount("efivarfs", VARIABLES, "efivarfs", _FLAGS)
    device = named or _text("LoaderDevicePartUUID").lower()
    secure = _variable(f"SecureBoot-{_GLOBAL}") == b"\1"
    counted = _text("LoaderBootCountPath").replace("\\", "/").rpartition("/")[2]
    return ["uefi", int(secure), counted or _text("LoaderEntrySelected"), device, find_partition(device)]


def find_partition(uuid: str) -> str:
    """The partition with this GUID, as a device; nothing if there is none."""
    for name in sorted(os.listdir("/sys/class/block")) if uuid else []:
        try:
            with open(f"/sys/class/block/{name}/partition") as file:
                number = int(file.read())
            disk = os.path.basename(os.path.dirname(os.path.realpath(f"/sys/class/block/{name}")))
            with open(f"/sys/class/block/{disk}/queue/logical_block_size") as file:
                sector = int(file.read())
            fd = os.open(f"/dev/{disk}", os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError):
            continue
        try:
            head = os.pread(fd, sector, sector)
            at, size = int.from_bytes(head[72:80], "little") * sector, int.from_bytes(head[84:88], "little")
            entry = os.pread(fd, 128, at + (number - 1) * size) if head[:8] == b"EFI PART" else b""
        except (OSError, OverflowError):
            entry = b""
        os.close(fd)
        if guid(entry[16:32]) == uuid:
            return f"/dev/{name}"
    return ""


def guid(raw: bytes) -> str:
    """A GUID of a partition table as text; nothing unless it is 16 bytes."""
    if len(raw) != 16:
        return ""
    first = (raw[3::-1], raw[5:3:-1], raw[7:5:-1], raw[8:10], raw[10:])
    return "-".join(part.hex() for part in first)


def slot(entry: str) -> tuple[str, bool]:
    """(slot, whether it is on trial) of a loader entry's file name; ("", False) if it is not ours."""
    name = entry.lower().removesuffix(".conf")
    if not name.startswith("thimble-") or name[8:9] not in ("a", "b") or name[9:10] not in ("", "+"):
        return "", False
    return name[8], name[9:10] == "+"


def facts(
    loader: LoaderFacts,
    device: str,
    seen: list[BlockDevice],
    words: Mapping[str, str],
    state_disks: Sequence[str] = (),
) -> dict[str, Any]:
    """`boot` of boot.json. `device`: what `loader.device` is; `words`: the kernel command line. Pure."""
    which, trial = slot(loader.entry)
    which = words["thimble.slot"] if words.get("thimble.slot") in ("a", "b") else which
    if "thimble.slot" in words:  # set by GRUB or kexec; the loader's variables may be from an earlier boot
        trial = words.get("thimble.trial") == "1"
    return {
        "firmware": loader.firmware,
        "secure_boot": loader.secure,
        "slot": which,
        "trial": trial,
        "build": words.get("thimble.build", ""),
        "medium": medium(device, seen, state_disks, which),
    }


def medium(
    device: str, seen: list[BlockDevice], state_disks: Sequence[str] = (), which: str = ""
) -> dict[str, str] | None:
    """The boot medium: the partition the loader names, else the one medium that looks like ours. Pure.

    `which`: the slot; a boot from CD has none. Of several disks (a mirror started by a BIOS, which does not
    tell which) it is the first that holds the state.
    """
    disks = [one for one in seen if one["part"] == BOOT_PART]
    named = [one for one in seen if device and one["device"] == device]
    discs = [one for one in seen if one["kind"] == "iso9660" and one["label"] == CD_LABEL]
    if discs and not which and not any(one in disks for one in named):
        return {"disk": discs[0]["disk"], "esp": "", "kind": "cd"}
    disks = named or disks
    if len(disks) > 1:
        disks = [one for one in disks if one["disk"] in state_disks][:1]
    return {"disk": disks[0]["disk"], "esp": disks[0]["device"], "kind": "disk"} if disks else None


def _variable(name: str) -> bytes:
    """A variable's value without its attributes; nothing if there is none."""
    try:
        with open(f"{VARIABLES}/{name}", "rb") as file:
            return file.read()[4:]
    except OSError:
        return b""


def _text(name: str) -> str:
    return _variable(f"{name}-{_LOADER}").decode("utf-16-le", "replace").rstrip("\0")
