"""The hardware watchdog: PID 1's event loop feeds it; if the loop hangs, the machine is reset.

Opened once its driver is loaded; disarmed (magic close) right before an orderly shutdown.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..loop import Loop

DEVICE = "/dev/watchdog"
TIMEOUT = 60
_EVERY = 15.0
_SET_TIMEOUT = 0xC0045706  # WDIOC_SETTIMEOUT


class Watchdog:
    """Owns the device, if there is one."""

    def __init__(self, loop: Loop, note: Callable[[str], None], device: str = DEVICE) -> None:
        self._loop, self._note, self._device = loop, note, device
        self._fd = -1

    def open(self) -> None:
        """Arms it, if the machine has one."""
        try:
            self._fd = os.open(self._device, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return
        self._note(f"{self._device} is armed and resets the machine after {self._set_timeout()} s")
        self._feed()

    def close(self) -> None:
        """Disarms it."""
        if self._fd >= 0:
            try:
                os.write(self._fd, b"V")
            except OSError:
                pass
            os.close(self._fd)
            self._fd = -1

    def _set_timeout(self) -> str:
        """The seconds it takes; a driver may know its own time only."""
        from fcntl import ioctl

        try:
            return str(int.from_bytes(ioctl(self._fd, _SET_TIMEOUT, TIMEOUT.to_bytes(4, "little")), "little"))
        except OSError:
            return "its default number of"

    def _feed(self) -> None:
        if self._fd >= 0:
            try:
                os.write(self._fd, b"\0")
            except OSError:
                pass
            self._loop.after(_EVERY, self._feed)
