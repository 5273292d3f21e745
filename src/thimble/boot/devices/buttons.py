"""The power button: evdev devices that have a power key. (Ctrl-Alt-Del comes to PID 1 as SIGINT.)"""

from __future__ import annotations

import os
from functools import partial
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..loop import Loop

KEY_POWER = 116
_EV_KEY = 1
_EVENT = Struct("=qqHHi")


def has_key(capabilities: str, key: int) -> bool:
    """Whether a bit is set in a sysfs capability bitmap: words of 64 bits in hex, the highest first."""
    words = capabilities.split()
    if len(words) <= key // 64:
        return False
    return bool(int(words[-1 - key // 64], 16) >> key % 64 & 1)


def pressed(data: bytes, key: int) -> bool:
    """Whether these evdev events hold a press (not a repeat, not the release) of the key."""
    whole = len(data) - len(data) % _EVENT.size
    return any(
        kind == _EV_KEY and code == key and value == 1
        for _, _, kind, code, value in _EVENT.iter_unpack(data[:whole])
    )


class Buttons:
    """Watches all power keys there are."""

    def __init__(self, loop: Loop, on_power: Callable[[], None]) -> None:
        self._loop, self._on_power = loop, on_power
        self._open: dict[str, int] = {}

    def refresh(self) -> None:
        """Opens devices that appeared."""
        try:
            names = [name for name in os.listdir("/sys/class/input") if name.startswith("event")]
        except OSError:
            return
        for name in names:
            if name not in self._open and self._is_power(name):
                fd = os.open(f"/dev/input/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._open[name] = fd
                self._loop.watch(fd, partial(self._read, name))

    def _is_power(self, name: str) -> bool:
        try:
            with open(f"/sys/class/input/{name}/device/capabilities/key") as file:
                return has_key(file.read(), KEY_POWER) and os.path.exists(f"/dev/input/{name}")
        except OSError:
            return False

    def _read(self, name: str, _events: int) -> None:
        fd = self._open[name]
        try:
            data = os.read(fd, _EVENT.size * 64)
        except BlockingIOError:
            return
        except OSError:  # unplugged
            self._loop.unwatch(fd)
            os.close(fd)
            del self._open[name]
            return
        if pressed(data, KEY_POWER):
            self._on_power()
