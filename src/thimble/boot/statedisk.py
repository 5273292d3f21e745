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

# A candidate is (device path, "" or why it cannot be used, 1 if it wants no check); plain data, it crosses a pipe.
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


def usb_is_busy() -> bool:
    """Whether a USB disk may still be on its way: a mass storage interface without a block device yet."""
    try:
        interfaces = os.listdir("/sys/bus/usb/devices")
    except OSError:
        return False
    disks = [os.path.realpath(f"/sys/class/block/{name}") for name in os.listdir("/sys/class/block")]
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


def has_usb() -> bool:
    """Whether there is a USB bus at all."""
    return any(name.startswith("usb") for name in _listdir("/sys/bus/usb/devices"))


def mount(table: Table, device: str) -> None:
    """Mounts the state partition; raises OSError if that does not work. Its journal is replayed by the kernel."""
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
