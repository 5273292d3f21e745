"""What files say of themselves, read again only when they changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

#: So many files at most: beyond that it begins anew.
_KEEP = 4096


class Headers(Generic[T]):
    """`read` looks into a file. From any thread: a race reads twice, and both have read the same."""

    def __init__(self, read: Callable[[Path], T]) -> None:
        self._read = read
        self._known: dict[Path, tuple[tuple[int, ...], T]] = {}

    def get(self, path: Path) -> T:
        """What `read` found in the file as it is now. Raises OSError, and what `read` raises."""
        stat = path.stat()
        stamp = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        value = self._read(path)
        if len(self._known) >= _KEEP:
            self._known.clear()
        self._known[path] = (stamp, value)
        return value
