"""Trial boot of a new image: unless confirmed in time, the machine reboots; the loader counts the tries.

not a trial boot               on trial ──confirmed──► permanent
                                   └────timed out───► reboot; after the last try the old slot starts
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop, Timer


class BootTrial:
    """`fail(why)` is called when nobody confirmed within `timeout` seconds after the kernel's start."""

    def __init__(
        self, loop: Loop, timeout: float, say: Callable[[str], None], fail: Callable[[str], None]
    ) -> None:
        self._loop, self._timeout, self._say, self._fail = loop, timeout, say, fail
        self._timer: Timer | None = None
        self.on = False

    def begin(self) -> None:
        """This is a trial boot: starts the timer."""
        if not self.on:
            self.on = True
            left = max(0.0, self._timeout - time.clock_gettime(time.CLOCK_BOOTTIME))
            self._say(
                f"trial boot of this image: the host reboots unless it is confirmed within {left:.0f} s"
            )
            self._timer = self._loop.after(left, self._late)

    def confirmed(self) -> None:
        """The agent confirms the image."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._say("the trial boot is confirmed")
        self.on = False

    def _late(self) -> None:
        self._timer = None
        self._fail(f"the trial boot was not confirmed within {self._timeout:.0f} s")
