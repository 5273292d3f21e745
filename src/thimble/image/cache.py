"""The cache every part of the build shares; each entry appears whole or not at all.

    <root>/apt/        the private apt root (lists, solver state)
    <root>/debs/       packages, each named by its SHA-256
    <root>/trees/      one extracted directory per package, named likewise
    <root>/toolbox/    the tools of the build and of the lab; bin/ has wrappers for PATH
    <root>/stages/     one directory per build stage, named by the hash of all its inputs

Invariant: an entry is made in a directory beside it under a lock and renamed when it is complete, so a
build that is interrupted resumes and two builds at once share their work.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def root() -> Path:
    """Where the cache lies: $THIMBLE_CACHE, else $XDG_CACHE_HOME/thimble, else ~/.cache/thimble."""
    if own := os.environ.get("THIMBLE_CACHE"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "thimble"


@contextmanager
def locked(entry: Path) -> Iterator[None]:
    """Hold the lock of one entry; waits for whoever holds it now."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with open(entry.parent / f".{entry.name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def directory(entry: Path, make: Callable[[Path], None]) -> Path:
    """The directory `entry`, made by `make(into)` if it is not there yet."""
    if entry.is_dir():
        return entry
    with locked(entry):
        if entry.is_dir():
            return entry
        into = Path(tempfile.mkdtemp(prefix=f".{entry.name[:24]}.", dir=entry.parent))
        try:
            into.chmod(0o755)
            make(into)
            into.rename(entry)
        except BaseException:
            shutil.rmtree(into, ignore_errors=True)
            raise
    return entry


def write(path: Path, data: bytes) -> None:
    """Replace one file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:24]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
        Path(name).chmod(0o644)
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def key(*parts: object) -> str:
    """A short stable name for a list of inputs (anything JSON can say)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
