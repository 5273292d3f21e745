"""The state partition: found by its label, checked, mounted; RAM in its stead when that fails. Never erases.

Finding, checking and mounting run in job children (a bad disk may take minutes to answer a read); PID 1 only
decides, in `choose`, which is pure.
"""

from __future__ import annotations

import os

from . import linux
from .superblock import OFFSET, SIZE, parse
from .uevent import parse_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .modalias import Table

LABEL = "thimble-state"
PATH = "/var/lib/thimble"
_FLAGS = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOATIME
_IGNORED = ("ram", "loop", "zram", "sr", "fd", "nbd", "mtdblock")

# (device path, "" or why it cannot be used, 1 if it wants no check); plain data, for it crosses a pipe.
Candidate = tuple[str, str, int]


def find() -> list[Candidate]:
    """All block devices labelled as state partition, by file system label or GPT partition name."""
    found: list[Candidate] = []
    for name in sorted(os.listdir("/sys/class/block")):
        if not name.startswith(_IGNORED):
            candidate = look(name)
            if candidate is not None:
                found.append(candidate)
    return found


def look(name: str) -> Candidate | None:
    """The device of this name as a candidate, or None if it is none."""
    try:
        with open(f"/sys/class/block/{name}/uevent") as file:
            facts = parse_lines(file.read())
        fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    problem = ""
    block = b""
    try:
        block = os.pread(fd, SIZE, OFFSET)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    os.close(fd)
    superblock = parse(block)
    if superblock is not None and superblock.label == LABEL:
        return (f"/dev/{name}", "", int(superblock.clean))
    if facts.get("PARTNAME") != LABEL:
        return None
    if superblock is None:
        return (f"/dev/{name}", problem or "has no ext4 file system", 0)
    return (f"/dev/{name}", "", int(superblock.clean))


def choose(candidates: list[Candidate]) -> tuple[Candidate | None, str]:
    """The one to use, or None with the reason in words."""
    if not candidates:
        return None, f"no partition is labelled {LABEL}"
    if len(candidates) > 1:
        names = ", ".join(device for device, _, _ in candidates)
        return None, f"more than one partition is labelled {LABEL}: {names}"
    device, problem, _ = candidates[0]
    return (None, f"{device} {problem}") if problem else (candidates[0], "")


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


def mount(table: Table, device: str) -> None:
    """Mounts the state partition; raises OSError if that does not work."""
    from .drivers import load

    load(table, ("ext4",))
    linux.mount(device, PATH, "ext4", _FLAGS, "errors=remount-ro")
    os.chmod(PATH, 0o755)


def mount_ram() -> None:
    """RAM as state: half of it at most."""
    linux.mount("tmpfs", PATH, "tmpfs", _FLAGS, "mode=0755,size=50%")


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
