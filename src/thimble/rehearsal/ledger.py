"""The changes a host has acknowledged. After a cut it must know each of them, and none that was never asked.

The host's name is the register: it is changed as fast as the host answers. What is read back must be the last
acknowledged name, or the one under way when the power went.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from thimble.client.http import Client
from thimble.contract.host import HostChange
from thimble.core.problem import Problem


class Ledger:
    """Writes from a thread of its own until `stop`."""

    def __init__(self) -> None:
        self._count = 0
        self.acknowledged = ""
        self._asked = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def count(self) -> int:
        """How many changes were asked for, all in all."""
        return self._count

    def start(self, client: Callable[[], Client], *, pause: float = 0.5) -> None:
        """Change the name over and over; `client` makes a connection of this thread's own."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._write, args=(client, pause), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(70)

    def holds(self, name: str) -> bool:
        """Whether a host of this name kept the acknowledged changes."""
        return not self.acknowledged or name in (self.acknowledged, self._asked)

    def expected(self) -> str:
        return " or ".join(dict.fromkeys(name for name in (self.acknowledged, self._asked) if name))

    def seen(self, name: str) -> None:
        """The host answered so: from now on this is the acknowledged name."""
        self.acknowledged = self._asked = name

    def _write(self, client: Callable[[], Client], pause: float) -> None:
        try:
            with client() as line:
                while not self._stop.is_set():
                    self._count += 1
                    self._asked = f"rehearsal-{self._count}"
                    line.call("host.change", HostChange(name=self._asked))
                    self.acknowledged = self._asked
                    self._stop.wait(pause)
        except Problem:
            return  # the power went, or the host goes down in order: what is acknowledged is noted
