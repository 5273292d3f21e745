"""Kernel settings for a hypervisor, written once at boot. Forwarding for NAT is the agent's."""

from __future__ import annotations

import os
import stat
import sys
from math import isqrt

from .files import replace_file, write_setting

RUN = "/run/thimble"
# What the kernel runs when it wants a module.
MODPROBE = f"{RUN}/modprobe"
MODPROBE_TEXT = f"#!{sys.executable} -BIS\nfrom thimble.boot.devices.modprobe import main\nmain()\n"

SYSCTLS = (
    ("kernel/panic", "10"),
    ("kernel/sysrq", "176"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "1"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/pid_max", "4194304"),
    ("kernel/modprobe", MODPROBE),
    ("vm/overcommit_memory", "1"),
    ("vm/max_map_count", "1048576"),
    ("fs/aio-max-nr", "1048576"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_fifos", "1"),
    ("fs/protected_regular", "2"),
    ("net/ipv6/conf/default/accept_ra", "0"),
)
CONTROLLERS = "+cpu +memory +io +pids +cpuset"

# Nodes whose opening makes the kernel load the driver: path, minor of the misc device, mode.
NODES = (
    ("/dev/net/tun", 200, 0o666),
    ("/dev/vhost-net", 238, 0o660),
    ("/dev/vhost-vsock", 241, 0o660),
    ("/dev/fuse", 229, 0o660),
    ("/dev/loop-control", 237, 0o660),
)
_MISC = 10


def apply() -> None:
    """Writes all settings; those a kernel lacks are skipped."""
    make_nodes()
    replace_file(MODPROBE, MODPROBE_TEXT, 0o755)
    for key, value in SYSCTLS:
        write_setting(f"/proc/sys/{key}", value)
    write_setting("/proc/sys/vm/min_free_kbytes", str(reserve_kib(memory_kib())))
    write_setting("/sys/fs/cgroup/cgroup.subtree_control", CONTROLLERS)


def memory_kib() -> int:
    """All RAM the kernel manages."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024


def reserve_kib(total_kib: int) -> int:
    """What the kernel keeps free for itself: twice its own rule, 4 × √RAM in KiB (init_per_zone_wmark_min).

    khugepaged raises it to 66 MiB and more on any machine with transparent huge pages, which a small host
    would rather give to a guest: guests take their memory once, at their start.
    """
    return min(8 * isqrt(total_kib), 524288)


def make_nodes() -> None:
    """The device nodes of drivers that are not loaded yet."""
    for path, minor, mode in NODES:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            os.mknod(path, mode | stat.S_IFCHR, os.makedev(_MISC, minor))
            os.chmod(path, mode)
        except FileExistsError:
            pass
