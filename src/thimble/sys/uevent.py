"""The kernel's own news about devices: NETLINK_KOBJECT_UEVENT, group 1. No udev needed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

_KOBJECT_UEVENT = 15
_KERNEL = 1


class Uevents:
    """Calls `heard` soon after devices of `subsystem` came, went or changed; many at once count as one."""

    def __init__(self, subsystem: str, heard: Callable[[], None], *, settle: float = 0.3) -> None:
        self._mark = f"\0SUBSYSTEM={subsystem}\0".encode()
        self._heard = heard
        self._settle = settle
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, _KOBJECT_UEVENT)
        self._socket.bind((0, _KERNEL))
        self._loop.add_reader(self._socket, self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if self._timer is not None:
            self._timer.cancel()

    def _readable(self) -> None:
        news = False
        with suppress(BlockingIOError):
            while True:
                try:
                    message, (_, groups) = self._socket.recvfrom(16384)
                except OSError as error:
                    if isinstance(error, BlockingIOError):
                        raise
                    news = True  # some were lost: look
                    continue
                # from the kernel: a group, and `add@/devices/…` first; others may not send here
                news = news or (groups == _KERNEL and self._mark in message + b"\0")
        if news and self._timer is None:
            self._timer = self._loop.call_later(self._settle, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._heard()
