"""Keeps a child alive: the agent, and the small daemons.

stopped ──start()──► running ──(it ends)──► waiting (back-off) ──► running
   ▲                    │                      │
   └──────stop()────────┴──────────stop()──────┘
"""

from __future__ import annotations

import os
import signal
import time

from .backoff import Backoff
from .children import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop, Timer


class Supervised:
    """One child that is kept running. `launch(on_exit)` starts it and returns its pid (0 if it could not)."""

    def __init__(
        self,
        name: str,
        loop: Loop,
        launch: Callable[[Callable[[int], None]], int],
        say: Callable[[str], None],
        last_output: Callable[[str], str],
        backoff: Backoff | None = None,
    ) -> None:
        self.name, self._loop, self._launch, self._say = name, loop, launch, say
        self._last_output, self._backoff = last_output, backoff or Backoff()
        self.wanted = False
        self.pid = 0
        self._since = 0.0
        self._timer: Timer | None = None

    def start(self) -> None:
        """Keeps it running from now on."""
        self.wanted = True
        if not self.pid and self._timer is None:
            self._run()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends it for good; a running one gets the signal."""
        self.wanted = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.signal(number)

    def restart(self) -> None:
        """Ends the running one and starts it again at once, with the configuration of now."""
        self.wanted = True
        if self.pid:
            self._since = float("-inf")
            self.signal(signal.SIGTERM)
        else:
            self.start()

    def signal(self, number: int) -> bool:
        """Sends a signal if it runs."""
        if not self.pid:
            return False
        os.kill(self.pid, number)
        return True

    def _run(self) -> None:
        self._timer = None
        self._since = time.monotonic()
        self.pid = self._launch(self._ended)

    def _ended(self, status: int) -> None:
        self.pid = 0
        if not self.wanted:
            return
        asked = self._since == float("-inf")
        wait = 0.0 if asked else self._backoff.next_delay(time.monotonic() - self._since)
        if not asked:
            output = self._last_output(self.name)
            self._say(f"{self.name} ended ({describe(status)}), restarting in {wait:.0f} s{output}")
        self._timer = self._loop.after(wait, self._run)
