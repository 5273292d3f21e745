"""What a test may touch: processes that it started, and no network but its own. All else is refused by name.

Signals   only to this run's own processes: those it started, and theirs. It is their subreaper, so that an
          orphan (the QEMU of an agent that was killed) stays one of its own. Signal 0 only asks, and may.
Mounts    are made in a mount namespace of this run and are never seen outside; those of the machine that a
          host would write below (`MACHINES`) are read-only in it, or may not come into being.
Networks  `ip`, `nft` and the like change nothing in the network namespace this run was started in.

A refusal is an AssertionError that names the test, raised where it happens and again when the test ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Where a host keeps what it is: the machine's own, never a test's.
MACHINES = (Path("/var/lib/thimble"), Path("/run/thimble"))

_SUBREAPER = 36  # linux/prctl.h
_NEWNS, _PRIVATE, _READ_ONLY = 0x00020000, 0x4000 | 0x40000, 1  # linux/sched.h, linux/mount.h
_CHANGES = {"add", "del", "delete", "set", "replace", "flush", "change", "append", "-batch", "-b",
            "-f", "--file", "insert", "create", "destroy", "rename"}  # fmt: skip
_ELSEWHERE = {"netns", "-n", "-netns"}

refused: list[str] = []


def install() -> None:
    """For this process and all it forks; once."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    ours = Ours(os.getpid())
    _guard(os, "kill", ours.refuse_process)
    _guard(os, "killpg", ours.refuse_group)
    _guard(signal, "pidfd_send_signal", ours.refuse_descriptor)
    if os.geteuid() == 0:
        _own_mounts(libc)
        _guard_network(Path("/proc/self/ns/net").readlink())


def check() -> None:
    """Raises what a test was refused, in case the code under test swallowed it."""
    for path in MACHINES:
        if path not in _there and path.exists():
            refused.append(f"{_test()} made {path}, which is the machine's")
            _there.add(path)
    if refused:
        told = "; ".join(refused)
        refused.clear()
        raise AssertionError(told)


_there = {path for path in MACHINES if path.exists()}


class Ours:
    """Which processes are this run's. `root`: its pid."""

    def __init__(self, root: int) -> None:
        self.root = root
        self._seen = {root}

    def refuse_process(self, pid: int, number: int) -> str:
        """Why this signal may not be sent; empty when it may.

        A pid of nobody is refused if it is none of ours that ended: the kernel counts upwards, so ours are
        above `root`, or were seen.
        """
        if number == 0:
            return ""
        if pid <= 0:
            return f"sends signal {number} to {pid}: that is more than one process"
        if self.has(pid) or (not Path(f"/proc/{pid}").exists() and (pid in self._seen or pid > self.root)):
            return ""
        return f"sends signal {number} to process {pid} (of {_parent(pid)}), which {self.root} did not start"

    def refuse_group(self, group: int, number: int) -> str:
        return self.refuse_process(group, number)

    def refuse_descriptor(self, descriptor: int, number: int, *_: Any) -> str:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
        pid = next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))
        return "" if pid == -1 else self.refuse_process(pid, number)

    def has(self, pid: int) -> bool:
        """Is it this run, or below it?"""
        chain = [pid]
        while chain[-1] != self.root:
            if not (parent := _parent(chain[-1])):
                return False
            chain.append(parent)
        self._seen.update(chain)
        return True


def _parent(pid: int) -> int:
    """0 when it has none, or is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[1])


def _guard(module: Any, name: str, refuse: Callable[..., str]) -> None:
    true = getattr(module, name)

    def guarded(*args: Any) -> Any:
        _refuse(refuse(*args))
        return true(*args)

    setattr(module, name, guarded)


def _refuse(why: str) -> None:
    if why:
        refused.append(f"{_test()} {why}")
        raise AssertionError(refused[-1])


def _test() -> str:
    return os.environ.get("PYTEST_CURRENT_TEST", "the tests").split(" ")[0]


def _own_mounts(libc: ctypes.CDLL) -> None:
    results = [libc.unshare(_NEWNS), libc.mount(b"none", b"/", None, _PRIVATE, None)]
    results += [
        libc.mount(b"tmpfs", str(path).encode(), b"tmpfs", _READ_ONLY, b"size=4k") for path in sorted(_there)
    ]
    if any(results):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _guard_network(machines: Path) -> None:
    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event != "subprocess.Popen":
            return
        words = [os.fsdecode(word) for word in args[1]]
        program = words[0].rsplit("/", 1)[-1]
        here = not _ELSEWHERE & set(words)
        changes = program in ("ip", "nft", "bridge") and here and _CHANGES & set(words)
        if changes and Path("/proc/thread-self/ns/net").readlink() == machines:
            _refuse(f"changes the machine's own network: {' '.join(words)}")

    sys.addaudithook(hook)
