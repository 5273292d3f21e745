"""The clock: never earlier than the image's build date or the last shutdown; the rest is chronyd's.

The kernel itself sets the clock from the RTC (CONFIG_RTC_HCTOSYS). Nothing is written to disk but
one empty file at shutdown, whose time says when that was.
"""

from __future__ import annotations

import os
import time

STAMP = "boot/clock"
POOL = "pool.ntp.org"
CONFIGURATION = "/run/thimble/chrony.conf"


def not_before(moment: float) -> float:
    """Sets the clock to `moment` if it is earlier; returns by how many seconds it was moved."""
    moved = moment - time.time()
    if moved <= 0:
        return 0.0
    time.clock_settime(time.CLOCK_REALTIME, moment)
    return moved


def stamp(state: str) -> None:
    """Records the present time in the state directory."""
    path = f"{state}/{STAMP}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    os.utime(path)


def stamped(state: str) -> float:
    """The time of the last shutdown, Unix seconds; 0 if none is recorded."""
    try:
        return os.stat(f"{state}/{STAMP}").st_mtime
    except OSError:
        return 0.0


def chrony_conf(servers: list[str]) -> str:
    """chronyd's configuration: steps a wrong clock at first, keeps the RTC right, writes no files."""
    sources = [f"server {server} iburst" for server in servers] or [f"pool {POOL} iburst maxsources 4"]
    return "\n".join(
        [
            *sources,
            "makestep 1.0 5",
            "rtcsync",
            "port 0",
            "cmdport 0",
            "bindcmdaddress /run/chrony/chronyd.sock",
            "pidfile /run/thimble/chronyd.pid",
            "",
        ]
    )


def chrony_argv() -> list[str]:
    """chronyd in the foreground; it gives up root for its own user where the image has one."""
    import pwd

    try:
        user = pwd.getpwnam("_chrony").pw_name
    except KeyError:
        user = "root"
    return ["/usr/sbin/chronyd", "-d", "-F", "1", "-u", user, "-f", CONFIGURATION]
