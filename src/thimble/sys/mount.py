"""Mount and unmount by system call; the image has no `mount` program."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from thimble.core.problem import Problem
from thimble.sys import files

NOSUID = 2
NODEV = 4
NOEXEC = 8
NOATIME = 1024
_DETACH = 2


def mount(source: str, target: Path, kind: str, *, flags: int = 0, data: str = "") -> None:
    """mount(2); makes the directory `target`. Raises `Problem`."""
    target.mkdir(parents=True, exist_ok=True)
    if _libc().mount(source.encode(), os.fsencode(target), kind.encode(), flags, data.encode()):
        raise _problem(f"cannot mount {source} at {target}")


def unmount(target: Path, *, detach: bool = False) -> None:
    """umount2(2). `detach`: take it out of sight now, even when something still uses it."""
    if _libc().umount2(os.fsencode(target), _DETACH if detach else 0):
        raise _problem(f"cannot unmount {target}")


def mounted(target: Path) -> tuple[str, str] | None:
    """(source, kind) of what is mounted exactly at `target`, the last one if several; None if nothing."""
    found = None
    wanted = os.path.realpath(target)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, where, kind, *_ = line.split()
        if _plain(where) == wanted:
            found = (_plain(source), kind)
    return found


def _plain(word: str) -> str:
    # /proc/mounts writes space, tab, newline and backslash as octal escapes
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(code, character)
    return word


def _libc() -> Any:
    import ctypes  # late: dear, and most hosts mount nothing on their way to ready

    return ctypes.CDLL(None, use_errno=True)


def _problem(what: str) -> Problem:
    import ctypes

    number = ctypes.get_errno()
    return files.problem(OSError(number, os.strerror(number)), what)
