"""Boot partitions, and others we look into, mounted for as long as they are read or written.

FAT knows no journal: it is checked before it is written when it was not unmounted cleanly, and mounted with
`dirsync`. What a killed agent left mounted is unmounted before our first mount, because the kernel mounts no
partition for reading and for writing at once. A directory may stand for a device, on hosts without FAT and in
tests. All of this waits for disks: it is for threads, not for the event loop.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from thimble.core.problem import Code, Problem
from thimble.sys import mount

_DIRSYNC = 128
_READ_ONLY = 1
_FLAGS = mount.NOSUID | mount.NODEV | mount.NOEXEC | mount.NOATIME
_DIRTY_AT, _DIRTY = 0x41, 1  # FAT32's BPB: bit 0 is set while it is mounted for writing


class PartitionLocks:
    """Many may read a partition at once, one alone may write it: the kernel mounts it one way at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers: dict[str, int] = {}
        self._writers: set[str] = set()

    @contextmanager
    def held(self, device: str, *, alone: bool) -> Iterator[None]:
        """Wait for the lock, and hold it for the time of the block."""
        with self._changed:
            self._changed.wait_for(
                lambda: device not in self._writers and not (alone and self._readers.get(device))
            )
            if alone:
                self._writers.add(device)
            else:
                self._readers[device] = self._readers.get(device, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                if alone:
                    self._writers.discard(device)
                else:
                    self._readers[device] -= 1
                self._changed.notify_all()


class Mounts:
    """All mounts of this package, below `<run>/deploy`; one for the whole agent."""

    def __init__(self, run: Path) -> None:
        self._folder = run / "deploy"
        self._locks = PartitionLocks()
        self._tidying = threading.Lock()
        self._tidied = False

    def tidy(self) -> None:
        """Unmount what an agent left mounted that was killed; once, and before our first mount."""
        with self._tidying:
            if self._tidied:
                return
            for target in self._folder.glob("*-*"):
                with suppress(Problem):
                    mount.unmount(target, detach=True)
                with suppress(OSError):
                    target.rmdir()
            self._tidied = True

    @contextmanager
    def mounted(
        self, device: str, *, kind: str = "vfat", write: bool = False, data: str = ""
    ) -> Iterator[Path]:
        """`device` as a directory, for the time of the block. `data`: options of the file system itself.

        Raises `Problem`.
        """
        if Path(device).is_dir():
            yield Path(device)
            return
        self.tidy()
        with self._locks.held(device, alone=write):
            flags = _FLAGS | (0 if write else _READ_ONLY)
            if write and kind == "vfat":
                check_fat(device)
                flags |= _DIRSYNC
            target = self._folder / f"{Path(device).name}-{os.urandom(4).hex()}"
            mount.mount(device, target, kind, flags=flags, data=data)
            try:
                yield target
            finally:
                try:
                    mount.unmount(target)
                except Problem:
                    mount.unmount(target, detach=True)
                with suppress(OSError):
                    target.rmdir()


def check_fat(device: str) -> None:
    """Repair a FAT that was not unmounted; its lost clusters are of files nothing refers to yet."""
    import subprocess  # not for every host that is only looked at

    with open(device, "rb") as disk:
        head = disk.read(512)
    if not head[_DIRTY_AT] & _DIRTY:
        return
    try:
        done = subprocess.run(["fsck.vfat", "-a", device], capture_output=True, timeout=120, check=False)
    except FileNotFoundError:
        return  # a host of somebody's own, without the program
    except subprocess.TimeoutExpired as error:
        raise Problem(Code.TIMEOUT, f"checking {device} does not end") from error
    if done.returncode > 1:
        raise Problem(
            Code.FAILED,
            f"the boot partition {device} is damaged: {done.stdout.decode(errors='replace').strip()[-200:]}",
            hint="Install anew on this disk from a stick; its datastore stays.",
        )
