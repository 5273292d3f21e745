"""Confines a program that reads what strangers wrote: a user of its own for each run, no privileges to gain,
no network, bounded memory, processor time and file size. Files come to it as descriptors, by
`/proc/self/fd/N`.

Between fork and exec of an agent that has threads as little as possible is done, and everything is looked up
before (docs/decisions/0130). Where we are not root, or the program lies in a private directory, the user
stays ours; the limits hold all the same.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from thimble.sys import files
from thimble.sys.process import usable_by_others

#: The group of all such programs: what they are to read is readable for it.
READERS = 89_999
_UIDS = (f for n in itertools.count() if (f := 90_000 + n % 9_000))

_NEW_NET, _NEW_IPC = 0x40000000, 0x08000000  # sched.h
_NO_NEW_PRIVS = 38  # linux/prctl.h
_CPU, _FSIZE, _CORE, _AS = 0, 1, 4, 9  # asm-generic/resource.h


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of address space, seconds of processor time, bytes of a file it may write."""

    memory: int
    cpu_s: int
    file_bytes: int = 0


class Cell:
    """For one run. `enter` is for the child, after its fork."""

    def __init__(self, program: str, limits: Limits) -> None:
        found = shutil.which(program)
        apart = os.geteuid() == 0 and found is not None and usable_by_others(Path(found))
        self.uid = next(_UIDS) if apart else None
        self._limits = limits
        self._libc = ctypes.CDLL(None, use_errno=True)

    def may_read(self, descriptor: int) -> None:
        """Let it open the file behind `descriptor` to read. Raises `Problem`."""
        facts = os.fstat(descriptor)
        if self.uid is None or facts.st_mode & 0o004 or (facts.st_gid == READERS and facts.st_mode & 0o040):
            return
        try:
            os.fchown(descriptor, -1, READERS)
            os.fchmod(descriptor, facts.st_mode & 0o7777 | 0o040)
        except OSError as error:
            raise files.problem(error, "cannot let a program of ours read this file") from error

    def owns(self, descriptor: int) -> None:
        """Let it write the file behind `descriptor`, until `disowns`."""
        if self.uid is not None:
            os.fchown(descriptor, self.uid, READERS)

    def disowns(self, descriptor: int) -> None:
        if self.uid is not None:
            os.fchown(descriptor, os.geteuid(), os.getegid())

    @property
    def enter(self) -> Callable[[], None]:
        unshare, prctl, setrlimit = self._libc.unshare, self._libc.prctl, self._libc.setrlimit
        uid = self.uid
        limits = [
            (_CORE, 0),
            (_CPU, self._limits.cpu_s),
            (_AS, self._limits.memory),
            (_FSIZE, self._limits.file_bytes),
        ]
        bounds = [(which, (ctypes.c_uint64 * 2)(value, value)) for which, value in limits]

        def enter() -> None:
            if uid is not None:
                unshare(_NEW_NET | _NEW_IPC)  # a container may not allow it: the rest holds
                os.setgroups([])
                os.setresgid(READERS, READERS, READERS)
                os.setresuid(uid, uid, uid)
            failed = prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
            for which, bound in bounds:
                failed = failed or setrlimit(which, bound)
            if failed:
                raise OSError("it could not be confined")

        return enter
