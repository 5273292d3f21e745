"""The state partition: found by its label, checked, mounted; RAM in its stead when that fails. Never erases.

Looking (blocks.py), checking and mounting run in job children (a bad disk may take minutes to answer a read);
PID 1 only decides, in `candidates` and `choose`, which are pure.
"""

from __future__ import annotations

import os

from . import linux, management

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .blocks import Seen
    from .modalias import Table

LABEL = "thimble-state"
PATH = "/var/lib/thimble"
ASIDE = "/run/thimble/state"
# Bytes; a new host's records take some 20 KiB.
LEAST = 256 * 1024
_FLAGS = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOATIME


class Candidate:
    """What may be the state partition: a file system, or the members of a mirror that holds one.

    `problem` says why it cannot be used; `clean` that it wants no check.
    """

    __slots__ = ("clean", "device", "members", "problem")

    def __init__(
        self, device: str, *, problem: str = "", clean: bool = False, members: list[Seen] | None = None
    ) -> None:
        self.device, self.problem, self.clean = device, problem, clean
        self.members: list[Seen] = members or []

    def complete(self) -> bool:
        """Whether nothing of it is missing."""
        return not self.members or len(self.members) >= self.members[0]["members"]


def candidates(seen: list[Seen]) -> list[Candidate]:
    """All that is labelled as state partition: file systems, partitions, mirrors."""
    found: list[Candidate] = []
    sets: dict[str, list[Seen]] = {}
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
    """The one to use, or None with the reason in words."""
    if not found:
        return None, f"no partition is labelled {LABEL}"
    if len(found) > 1:
        names = ", ".join(one.device for one in found)
        return None, f"more than one partition is labelled {LABEL}: {names}"
    one = found[0]
    return (None, f"{one.device} {one.problem}") if one.problem else (one, "")


def on_the_way() -> str:
    """Whether disks may still appear: `surely` (a disk without its block device yet), `perhaps`, or nothing.

    PCI, SAS, SATA and virtio disks are there when their driver is loaded; NVMe and USB tell theirs later.
    """
    disks = [os.path.realpath(f"/sys/class/block/{name}") + "/" for name in _listdir("/sys/class/block")]
    if _usb_disk_without_block(disks) or _scsi_disk_without_block():
        return "surely"
    empty_nvme = any(
        not any(item.startswith((f"{name}c", f"{name}n")) for item in _listdir(f"/sys/class/nvme/{name}"))
        for name in _listdir("/sys/class/nvme")
    )
    has_usb = any(name.startswith("usb") for name in _listdir("/sys/bus/usb/devices"))
    return "perhaps" if empty_nvme or has_usb else ""


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


def mount(table: Table, device: str) -> str:
    """Mounts the state partition aside, or raises OSError; the text of the network's record, or nothing.

    A disk that hangs may do this when nobody waits any more, so it is not done where others look.
    """
    from .drivers import load

    load(table, ("ext4",))
    os.makedirs(ASIDE, mode=0o700, exist_ok=True)
    linux.mount(device, ASIDE, "ext4", _FLAGS, "errors=remount-ro")
    if useless(ASIDE):
        put_away()
        raise OSError(0, "it is full, and no host has ever kept its state there")
    os.chmod(ASIDE, 0o755)
    return management.read_record(ASIDE)


def useless(path: str) -> bool:
    """Nothing is there, and nothing can be put there: an agent could not even make its first user."""
    facts = os.statvfs(path)
    return facts.f_bfree * facts.f_frsize < LEAST and not os.path.isdir(f"{path}/users")


def bring() -> None:
    """Puts what was mounted aside into its place."""
    linux.mount(ASIDE, PATH, "", linux.MS_MOVE)


def put_away() -> None:
    """Nobody waits for what is mounted aside any more."""
    linux.unmount(ASIDE, linux.MNT_DETACH)


def mount_ram() -> None:
    """RAM as state: half of it at most."""
    linux.mount("tmpfs", PATH, "tmpfs", _FLAGS, "mode=0755,size=50%")


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
