"""Files that survive a power cut, and the questions one asks of a file system.

Invariant: after `write_atomic` returns, the whole new content is on the disk; before, the whole old one is.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from thimble.core.problem import Code, Problem

_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace `path` by `data`: temporary file beside it, fsync, rename, fsync of the directory.

    `durable=False` skips both fsyncs, for files in RAM. Raises `Problem` NO_SPACE or FAILED; the old content
    stays then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, _NEW, mode)
        try:
            os.fchmod(descriptor, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
        if durable:
            sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise problem(error, f"cannot write {path}") from error


def regular(path: Path, below: Path) -> bool:
    """Is it a plain file, with no symbolic link on the way down from `below`?"""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        for place in path.parents:
            if place == below:
                return True
            if not stat.S_ISDIR(os.lstat(place).st_mode):
                return False
    except OSError:
        pass
    return False


def open_regular(path: Path, flags: int) -> int:
    """Open a plain file, never what a symbolic link leads to, a device or a pipe. Raises `OSError`."""
    place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)  # opening has no effect on it yet
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError(0, "it is not a plain file")
        return os.open(f"/proc/self/fd/{place}", flags | os.O_CLOEXEC)
    finally:
        os.close(place)


def sync_directory(path: Path) -> None:
    """Make renames and unlinks in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Unlink durably; a missing file is fine."""
    try:
        path.unlink()
        sync_directory(path.parent)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise problem(error, f"cannot remove {path}") from error


def remove_large(path: Path) -> None:
    """Out of sight at once, then give its blocks back: that takes a while for a large file, so in a thread.

    What an agent that dies meanwhile leaves is called `.<name>.gone.new`. A missing file is fine.
    """
    doomed = path.with_name(f".{path.name}.gone.new")
    try:
        path.rename(doomed)
    except FileNotFoundError:
        return
    except OSError:  # a full disk may have no room for another name
        doomed = path
    remove(doomed)


def space(path: Path) -> tuple[int, int]:
    """(size, free to us) of the file system `path` is on, in bytes."""
    try:
        facts = os.statvfs(path)
    except OSError as error:
        raise problem(error, f"cannot look at {path}") from error
    return facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize


def problem(error: OSError, what: str) -> Problem:
    """An `OSError` in our words, with what to do about it."""
    words = os.strerror(error.errno) if error.errno else error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem(
            Code.NO_SPACE, f"{what}: {words}", hint="Free space on that datastore, or use another."
        )
    if error.errno == errno.EROFS:
        return Problem(
            Code.FAILED,
            f"{what}: {words}",
            hint="The file system went read-only; look at `thimble host log`.",
        )
    return Problem(Code.FAILED, f"{what}: {words}")
