"""The guests' packages as verified .deb files: pinned in lock.json beside this file, like the image's.

Three closures: `base` is what Debian calls essential, `debian` what the demonstration guest has beyond it,
`cloud` what cloud-init asks for beyond that. `parts` are the kernel and the static busybox, which no guest
*installs* (that would pull in an initramfs generator).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from thimble.image import cache, locking
from thimble.image.apt import Apt
from thimble.image.locking import Lock, Pin
from thimble.image.packages import missing, read_lock, unpack
from thimble.image.progress import Report

LOCK_FILE = Path(__file__).parent / "lock.json"
SUITE = "trixie"
BASE = ("?essential",)
DEBIAN = (
    *BASE,
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    "libpam-systemd",
    "login",
    "netbase",
    "openssh-server",
    "passwd",
    "procps",
    "qemu-guest-agent",
    "systemd",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
    "kmod",
)
CLOUD = (*DEBIAN, "cloud-init", "sudo")
PARTS = ("linux-image-cloud-amd64", "busybox-static")
DEMONSTRATION = ("base", "debian", "parts")
KERNEL = "linux-image-6."
BUSYBOX = "busybox-static"


def resolve(apt: Apt) -> Lock:
    """The newest verified versions of all sets."""
    base = apt.resolve(BASE)
    debian = [pin for pin in apt.resolve(DEBIAN) if pin not in base]
    cloud = [pin for pin in apt.resolve(CLOUD) if pin not in base and pin not in debian]
    parts = [pin for pin in apt.resolve(PARTS) if pin.name.startswith(KERNEL) or pin.name == BUSYBOX]
    sets = {"base": base, "debian": debian, "cloud": cloud, "parts": parts}
    return Lock(suite=SUITE, epoch=read_lock().epoch, sets={name: tuple(pins) for name, pins in sets.items()})


def ensure(report: Report, sets: tuple[str, ...] = DEMONSTRATION) -> Lock:
    """The lock whose `sets` are all in the cache: the pinned one, or the newest if a pin is gone."""
    lock = locking.read(LOCK_FILE.read_text())
    absent = _absent(lock, sets)
    if not absent:
        return lock
    apt = private_apt()
    apt.update(report)
    if missing(absent, apt):
        apt.update(report, older_than_s=0)
    if gone := missing(absent, apt):
        names = ", ".join(map(str, gone))
        report(
            "guest", None, f"WARNING: Debian no longer offers {names}; taking the newest verified packages"
        )
        lock = resolve(apt)
        absent = _absent(lock, sets)
    for start in range(0, len(absent), 24):
        report("guest", start / len(absent), f"fetching {len(absent) - start} packages")
        apt.download(absent[start : start + 24], deb_directory())
    return lock


def private_apt() -> Apt:
    return Apt(cache.root() / "apt" / SUITE, suite=SUITE)


def deb(pin: Pin) -> Path:
    """Where the cache keeps this package."""
    return deb_directory() / f"{pin.sha256}.deb"


def deb_directory() -> Path:
    return cache.root() / "debs"


def extracted(pin: Pin) -> Path:
    """The files of one package, in a directory of the cache."""
    tree = cache.root() / "trees" / pin.sha256
    return cache.directory(tree, lambda into: unpack(deb(pin), pin.sha256, into)) / "data"


def _absent(lock: Lock, sets: tuple[str, ...]) -> list[Pin]:
    pins: Iterable[Pin] = (pin for name in sorted(sets) for pin in lock.named(name))
    return [pin for pin in pins if not deb(pin).is_file()]
