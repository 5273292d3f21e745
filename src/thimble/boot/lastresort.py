"""When PID 1 itself fails: report on every console and in the kernel log, sync the disks, reboot."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds to read what happened before the reboot; shorter in a trial boot.
settings = {"wait": 10.0}


def last_resort(error: BaseException) -> None:
    """Logs the error with its traceback, syncs, waits, reboots."""
    wait = settings["wait"]
    text = _traceback(error)
    for line in [f"PID 1 failed and reboots the machine in {wait:.0f} s:", *text.splitlines()]:
        shout(f"thimble: {line}")
    pid = _guarded(os.fork)
    if pid == 0:
        os.sync()
        os._exit(0)
    time.sleep(wait)
    while True:
        _guarded(_reboot)
        _guarded(_sysrq)
        time.sleep(5)


def shout(line: str) -> None:
    """Writes a line to the kernel log and to all consoles, never waiting for one."""
    for path, text in (("/dev/kmsg", f"<2>{line}\n"), *((tty, f"\r{line}\r\n") for tty in _consoles())):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            os.write(fd, text.encode("utf-8", "replace"))
        except OSError:
            pass
        os.close(fd)


def _consoles() -> list[str]:
    try:
        with open("/sys/class/tty/console/active") as file:
            return [f"/dev/{name}" for name in file.read().split()]
    except OSError:
        return ["/dev/console"]


def _traceback(error: BaseException) -> str:
    try:
        import traceback

        return "".join(traceback.format_exception(error))
    except BaseException:
        return repr(error)


def _guarded(act: Callable[[], object]) -> int:
    try:
        result = act()
    except BaseException:
        return -1
    return result if isinstance(result, int) else -1


def _reboot() -> None:
    from . import linux

    linux.reboot(linux.RB_AUTOBOOT)


def _sysrq() -> None:
    fd = os.open("/proc/sysrq-trigger", os.O_WRONLY)
    os.write(fd, b"b")
    os.close(fd)
