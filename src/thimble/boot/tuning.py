"""Settings of the kernel for a hypervisor, literal, written once. Forwarding for NAT is the agent's."""

from __future__ import annotations

import os
import sys

from .bridge import write_setting

RUN = "/run/thimble"
# What the kernel runs when it wants a module.
MODPROBE = f"{RUN}/modprobe"
MODPROBE_TEXT = f"#!{sys.executable} -BIS\nfrom thimble.boot.modprobe import main\nmain()\n"

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


def apply() -> None:
    """Writes all of it; what a kernel lacks is passed over."""
    replace_file(MODPROBE, MODPROBE_TEXT, 0o755)
    for key, value in SYSCTLS:
        write_setting(f"/proc/sys/{key}", value)
    write_setting("/sys/fs/cgroup/cgroup.subtree_control", CONTROLLERS)


def replace_file(path: str, text: str, mode: int = 0o644) -> None:
    """Replaces a file in RAM in one step; readers see the old one or the new one."""
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.chmod(f"{path}.new", mode)
    os.replace(f"{path}.new", path)
