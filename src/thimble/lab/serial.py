"""The serial line as it was logged: read as bytes, because prompts end without a newline.

A `SerialLog` has a position; a match moves it behind the match, so that waiting twice for the same words
means waiting for them to come twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

POLL_S = 0.02
TAIL = 3000


class SerialLog:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = b""
        self._start = 0  # where in the file `_seen` begins

    def read(self) -> bytes:
        """What came since the last match."""
        try:
            with self._path.open("rb") as handle:
                handle.seek(self._start + len(self._seen))
                self._seen += handle.read()
        except FileNotFoundError:
            pass
        return self._seen

    def skip(self) -> None:
        """Forget what came until now."""
        self.read()
        self._forget(len(self._seen))

    def tail(self, count: int = TAIL) -> bytes:
        """The last bytes of the whole log."""
        try:
            with self._path.open("rb") as handle:
                size = handle.seek(0, 2)
                handle.seek(max(0, size - count))
                return handle.read()
        except FileNotFoundError:
            return b""

    def wait_for(self, pattern: bytes, *, timeout: float, check: Callable[[], None]) -> bytes | None:
        """The bytes up to and with `pattern`; None when it did not come in time.

        `check` is called while waiting and may raise, to tell that waiting is vain.
        """
        deadline = time.monotonic() + timeout
        while True:
            late = time.monotonic() >= deadline
            at = self.read().find(pattern)
            if at >= 0:
                found = self._seen[: at + len(pattern)]
                self._forget(len(found))
                return found
            if late:
                return None
            check()
            time.sleep(POLL_S)

    def _forget(self, count: int) -> None:
        self._start += count
        self._seen = self._seen[count:]
