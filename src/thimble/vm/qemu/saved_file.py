"""The file that holds a saved VM's memory, in the VM's directory:

    saved.state.new   being written; an agent that finds it undoes the save
    saved.state       whole: the VM is saved. Its rename is the commit point
    resumed.state     loaded: from here on the guest may run, and it must never be loaded again

Only we open it; QEMU gets descriptors. A rename away comes before the guest's first step: a guest that goes
on twice from the same memory, over disks that it changed meanwhile, would destroy them.
"""

from __future__ import annotations

import os
from pathlib import Path

from thimble.core.problem import Code, Problem
from thimble.sys import files
from thimble.vm.record import saved_state
from thimble.vm.record.saved_state import Saved
from thimble.vm.record.spec import STATE_FILE, STATE_NEW, STATE_USED

_NEW = os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
MISSING = "its saved state is missing"
DAMAGED = "its saved state is damaged"


class StateFile:
    """Everything here may take as long as the disk does: call what writes or removes from a thread."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / STATE_FILE
        self.new = directory / STATE_NEW
        self.used = directory / STATE_USED

    def create(self, value: Saved) -> int:
        """Begin `saved.state.new`; the descriptor is for QEMU to go on with. Raises `Problem`."""
        try:
            descriptor = os.open(self.new, _NEW | os.O_WRONLY, 0o600)
            try:
                _write(descriptor, saved_state.head(value))
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            self.new.unlink(missing_ok=True)
            raise files.problem(error, f"cannot write {self.new}") from error
        return descriptor

    def commit(self) -> int:
        """It is whole: make it `saved.state`, durably; its length. Raises `Problem`; then it is not."""
        try:
            descriptor = os.open(self.new, os.O_RDWR | os.O_CLOEXEC)
            try:
                start = os.pread(descriptor, saved_state.HEAD_SIZE, 0)
                size = os.fstat(descriptor).st_size
                os.pwrite(descriptor, start[:16] + size.to_bytes(8, "little"), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self.used.unlink(missing_ok=True)
            self.new.rename(self.path)
            files.sync_directory(self.path.parent)
        except OSError as error:
            raise files.problem(error, f"cannot write {self.path}") from error
        return size

    def discard_new(self) -> None:
        self.new.unlink(missing_ok=True)

    def read(self, path: Path | None = None) -> Saved:
        """What is kept beside the memory. Raises `Problem` with what is wrong with the file."""
        descriptor = self.open(path)
        try:
            found = saved_state.lengths(os.pread(descriptor, saved_state.HEAD_SIZE, 0))
            json = os.pread(descriptor, found[1], saved_state.HEAD_SIZE) if found else b""
            whole = path is not None or (found and found[0] == os.fstat(descriptor).st_size)
            value = saved_state.read(json) if found and whole else None
        except OSError as error:
            raise files.problem(error, f"cannot read {self.path}") from error
        finally:
            os.close(descriptor)
        if value is None:
            raise Problem(Code.FAILED, DAMAGED)
        return value

    def open(self, path: Path | None = None) -> int:
        """To read. Raises `Problem`."""
        try:
            return files.open_regular(path or self.path, os.O_RDONLY)
        except FileNotFoundError:
            raise Problem(Code.NOT_FOUND, MISSING) from None
        except OSError as error:
            raise files.problem(error, f"cannot open {self.path}") from error

    def stream_at(self) -> int:
        """Where QEMU's stream begins in a file that `read` has understood."""
        descriptor = self.open()
        try:
            found = saved_state.lengths(os.pread(descriptor, saved_state.HEAD_SIZE, 0))
        finally:
            os.close(descriptor)
        return saved_state.offset(found[1] if found else 0)

    def use(self) -> None:
        """From now on it cannot be loaded again, whatever happens. Raises `Problem`."""
        self._rename(self.path, self.used)

    def unuse(self) -> None:
        """The guest took no step: it can be loaded again. Raises `Problem`."""
        self._rename(self.used, self.path)

    def drop(self, *, all: bool = False) -> None:
        """Remove what no VM needs any more; `all`: the saved state too. Raises `Problem`."""
        for path in (self.new, self.used, *((self.path,) if all else ())):
            files.remove(path)

    def _rename(self, old: Path, new: Path) -> None:
        try:
            old.rename(new)
            files.sync_directory(new.parent)
        except OSError as error:
            raise files.problem(error, f"cannot rename {old}") from error


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
