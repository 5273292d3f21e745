"""Logs that another program appends to (O_APPEND): their ends, and how they are kept short. All blocks."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def size(path: Path) -> int:
    """In bytes; 0 when there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def after(path: Path, start: int, most: int) -> bytes:
    """At most `most` bytes from `start` on; empty when there is no such file."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(most)
    except OSError:
        return b""


def tail(path: Path, count: int) -> bytes:
    """The last `count` bytes; empty when there is no such file."""
    return after(path, max(0, size(path) - count), count)


def shorten(path: Path, *, most: int, keep: int) -> None:
    """Cut one that is longer than `most` to nothing; its writer goes on at the new end. The last `keep` bytes
    go to `….old`.
    """
    with suppress(OSError):
        if path.stat().st_size > most:
            path.with_name(f"{path.name}.old").write_bytes(tail(path, keep))
            os.truncate(path, 0)
