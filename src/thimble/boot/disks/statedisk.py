"""The state partition: found by its label, checked, mounted; if that fails, RAM. Never erases anything.

Looking (blocks.py), checking and mounting run in job children (a bad disk may take minutes to answer a read);
PID 1 only decides, in `candidates` and `choose`, which are pure.
"""

from __future__ import annotations

import os

from .. import linux
from ..net import management

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..devices.modalias import DriverTable
    from .blocks import BlockDevice

LABEL = "thimble-state"
PATH = "/var/lib/thimble"
STAGING = "/run/thimble/state"
# Bytes that must be free; a new host's records take about 20 KiB.
LEAST = 256 * 1024
_FLAGS = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOATIME


class Candidate:
    """A possible state partition: a file system, or the members of a mirror (RAID 1) that holds one.

    `problem` says why it cannot be used; `clean`: needs no file system check.
    """

    __slots__ = ("clean", "device", "members", "problem")

    def __init__(
        self, device: str, *, problem: str = "", clean: bool = False, members: list[BlockDevice] | None = None
    ) -> None:
        self.device, self.problem, self.clean = device, problem, clean
        self.members: list[BlockDevice] = members or []

    def complete(self) -> bool:
        """Whether all members are there."""
        return not self.members or len(self.members) >= self.members[0]["members"]


def candidates(seen: list[BlockDevice]) -> list[Candidate]:
    """All that is labelled as state partition: file systems, partitions, mirrors."""
    found: list[Candidate] = []
    sets: dict[str, list[BlockDevice]] = {}
    for one in seen:
        if one["kind"] == "raid":
            if LABEL in (one["label"], one["part"]):
                sets.setdefault(one["uuid"], []).append(one)
        elif one["kind"] == "ext4" and LABEL in (one["label"], one["part"]):
            found.append(Candidate(one["device"], clean=bool(one["clean"])))
        elif one["part"] == LABEL:
            found.append(Candidate(one["device"], problem=one["problem"] or "has no ext4 file system"))
    for members in sets.values():
        names = "+".join(one["device"] for one in members)
        found.append(Candidate(names, members=members))
    return found


def choose(found: list[Candidate]) -> tuple[Candidate | None, str]:
    """The one to use, or None with the reason."""
    if not found:
        return None, f"no partition is labelled {LABEL}"
    if len(found) > 1:
        names = ", ".join(one.device for one in found)
        return None, f"more than one partition is labelled {LABEL}: {names}"
    one = found[0]
    return (None, f"{one.device} {one.problem}") if one.problem else (one, "")


def disks_pending() -> str:
    """Whether disks may still appear: `yes` (a disk without its block device yet), `maybe`, or nothing.

    PCI, SAS, SATA and virtio disks are there when their driver is loaded; NVMe and USB disks appear later.
    """
    disks = [os.path.realpath(f"/sys/class/block/{name}") + "/" for name in _listdir("/sys/class/block")]
    if _usb_disk_without_block(disks) or _scsi_disk_without_block():
        return "yes"
    empty_nvme = any(
        not any(item.startswith((f"{name}c", f"{name}n")) for item in _listdir(f"/sys/class/nvme/{name}"))
        for name in _listdir("/sys/class/nvme")
    )
    has_usb = any(name.startswith("usb") for name in _listdir("/sys/bus/usb/devices"))
    return "maybe" if empty_nvme or has_usb else ""


def _scsi_disk_without_block() -> bool:
    for name in _listdir("/sys/bus/scsi/devices"):
        path = f"/sys/bus/scsi/devices/{name}"
        try:
            with open(f"{path}/type") as file:
                is_disk = file.read().strip() == "0"
        except OSError:
            continue
        if is_disk and not _listdir(f"{path}/block"):
            return True
    return False


def _usb_disk_without_block(disks: list[str]) -> bool:
    interfaces = _listdir("/sys/bus/usb/devices")
    for interface in interfaces:
        try:
            with open(f"/sys/bus/usb/devices/{interface}/bInterfaceClass") as file:
                is_disk = file.read().strip() == "08"
        except OSError:
            continue
        path = os.path.realpath(f"/sys/bus/usb/devices/{interface}") + "/"
        if is_disk and not any(disk.startswith(path) for disk in disks):
            return True
    return False


def mount(table: DriverTable, device: str) -> str:
    """Mounts the state partition at STAGING, or raises OSError; returns the network's record, if any.

    It is moved into place afterwards: a disk that hangs may finish this when nobody waits any more.
    """
    from ..devices.drivers import load

    load(table, ("ext4",))
    os.makedirs(STAGING, mode=0o700, exist_ok=True)
    linux.mount(device, STAGING, "ext4", _FLAGS, "errors=remount-ro")
    if is_unusable(STAGING):
        unmount_staged()
        raise OSError(0, "it is full, and holds no state of a Thimble host")
    os.chmod(STAGING, 0o755)
    return management.read_record(STAGING)


def is_unusable(path: str) -> bool:
    """Holds no state, and has no space for any: the agent could not create its first user."""
    facts = os.statvfs(path)
    return facts.f_bfree * facts.f_frsize < LEAST and not os.path.isdir(f"{path}/users")


def move_into_place() -> None:
    """Moves the mount from STAGING to PATH."""
    linux.mount(STAGING, PATH, "", linux.MS_MOVE)


def unmount_staged() -> None:
    """Unmounts STAGING: nobody waits for it any more."""
    linux.unmount(STAGING, linux.MNT_DETACH)


def mount_ram() -> None:
    """A tmpfs as state: half of the RAM at most."""
    linux.mount("tmpfs", PATH, "tmpfs", _FLAGS, "mode=0755,size=50%")


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
