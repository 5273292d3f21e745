"""The last bytes of a stream, and how two records of one stream are joined. Pure."""

from __future__ import annotations

from collections import deque


class Ring:
    """At most `size` of the bytes that were put in, the latest ones."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: deque[bytes] = deque()
        self._count = 0

    def put(self, data: bytes) -> None:
        data = data[-self._size :]
        self._parts.append(data)
        self._count += len(data)
        while self._count - len(self._parts[0]) >= self._size:
            self._count -= len(self._parts.popleft())
        if len(self._parts) > 256:  # many tiny pieces: one byte each is what serial lines give
            whole = b"".join(self._parts)[-self._size :]
            self._parts = deque((whole,))
            self._count = len(whole)

    def content(self) -> bytes:
        return b"".join(self._parts)[-self._size :]


def missed(gap: bytes, first: bytes) -> bytes:
    """What of `gap` came before `first`.

    QEMU writes the same stream to a log and, once we are connected, to us. `gap` is what the log has beyond
    what we know, `first` the first piece that came to us; `gap` may end before, inside or behind `first`.
    """
    whole = gap.rfind(first)
    if whole >= 0:
        return gap[:whole]
    for length in range(min(len(gap), len(first)), 0, -1):
        if gap.endswith(first[:length]):
            return gap[:-length]
    return gap
