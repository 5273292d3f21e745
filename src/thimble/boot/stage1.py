"""The first stage of PID 1: basic mounts, and the root image on /usr. Imports only os, ctypes and their kin.

/init in the image is `#!/bin/python3.13 -BIS`, `from thimble.boot.stage1 import main`, `main()`. The initrd:

    /init  /dev/console (c 5 1)   /etc (passwd, group, …; stays, in RAM)
    /bin/python3.13, its libraries, the standard library, thimble with boot/
    /modules/NN-NAME.ko[.xz]      what mounting the root image needs, loaded in the order of the names
    /root.erofs                   (or /root.squashfs) becomes /usr: programs, drivers, rare Python modules

The modification time of /init is the image's build date.
"""

from __future__ import annotations

import os
import sys

from . import linux
from .lastresort import last_resort
from .timeline import mark

_SAFE = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
# source, target, type, flags, data
MOUNTS = (
    ("proc", "/proc", "proc", _SAFE, "hidepid=invisible"),
    ("sysfs", "/sys", "sysfs", _SAFE, ""),
    ("devtmpfs", "/dev", "devtmpfs", linux.MS_NOSUID | linux.MS_NOEXEC, "mode=0755"),
    ("devpts", "/dev/pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777,size=50%"),
    ("tmpfs", "/run", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755,size=20%"),
    ("tmpfs", "/tmp", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777,size=20%"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", _SAFE, "nsdelegate,memory_recursiveprot"),
)
DIRECTORIES = ("/usr", "/etc", "/var/lib/thimble", "/var/log", "/var/tmp", "/root")


def main() -> None:
    """Entry of /init. Returns never."""
    if os.getpid() != 1:
        sys.exit("thimble.boot is PID 1 of a Thimble image and nothing else")
    try:
        mark("init")
        built = os.stat("/init").st_mtime
        mount_basics()
        take_stdio()
        mount_root()
        free_tree("/kernel")  # the microcode: the kernel has loaded it
        extend_path()
        mark("root")
        from .stage2 import run

        run(built)
    except BaseException as error:
        last_resort(error)


def free_tree(path: str) -> None:
    """Deletes a tree of the initrd, which frees its RAM."""
    for folder, names, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(f"{folder}/{name}")
        for name in names:
            os.rmdir(f"{folder}/{name}")
    if os.path.isdir(path):
        os.rmdir(path)


def extend_path() -> None:
    """Lets imports reach the root image: the modules that are not in the early part."""
    for path in (
        f"/usr/lib/python3.{sys.version_info.minor}",
        f"/usr/lib/python3.{sys.version_info.minor}/lib-dynload",
    ):
        if path not in sys.path and os.path.isdir(path):
            sys.path.append(path)
    # The importer cached the directories under /usr before the mount, maybe with the same times.
    sys.path_importer_cache.clear()


def mount_basics() -> None:
    """The file systems everything needs. Those a kernel lacks are passed over, except the first three."""
    os.umask(0o022)
    for source, target, kind, flags, data in MOUNTS:
        try:
            os.makedirs(target, exist_ok=True)
            linux.mount(source, target, kind, flags, data)
        except OSError:
            if target in ("/proc", "/sys", "/dev"):
                raise
    for path in DIRECTORIES:
        os.makedirs(path, exist_ok=True)
    for link, to in (("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "/proc/self/fd/0"), ("/var/run", "/run")):
        if not os.path.lexists(link):
            os.symlink(to, link)


def take_stdio() -> None:
    """PID 1 keeps no console open as its standard streams: an accidental write there could block."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def mount_root() -> None:
    """Loads the early modules and puts the root image on /usr; a root without an image stays as it is."""
    names = sorted(os.listdir("/modules")) if os.path.isdir("/modules") else []
    for name in names:
        linux.load_module(f"/modules/{name}")
        os.unlink(f"/modules/{name}")  # files in the RAM root cost RAM for ever
    if os.path.exists("/root.erofs"):
        linux.mount("/root.erofs", "/usr", "erofs", linux.MS_RDONLY | linux.MS_NODEV)
    elif os.path.exists("/root.squashfs"):
        device = linux.attach_loop("/root.squashfs")
        linux.mount(device, "/usr", "squashfs", linux.MS_RDONLY | linux.MS_NODEV)
