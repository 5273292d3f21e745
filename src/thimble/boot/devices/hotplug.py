"""Hotplug: the kernel's uevents for new devices, and the drivers they need.

Until `open()` the boot's own coldplug sees every device by itself, and events are only drained.
"""

from __future__ import annotations

import socket

from . import drivers, uevent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..children import Children
    from ..loop import Loop
    from ..ramlog import RamLog
    from .modalias import DriverTable

_NETLINK_KOBJECT_UEVENT = 15


class Hotplug:
    """Loads drivers of new devices, one batch at a time. `on_input()` is called for a new input device."""

    def __init__(self, loop: Loop, children: Children, log: RamLog, on_input: Callable[[], None]) -> None:
        self._loop, self._children, self._log, self._on_input = loop, children, log, on_input
        self._table: DriverTable | None = None
        self._aliases: set[str] = set()
        self._busy = False
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _NETLINK_KOBJECT_UEVENT
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((0, 1))
        loop.watch(self._socket.fileno(), self._read)

    def open(self, table: DriverTable) -> None:
        """Coldplug is over: from here on this object loads the drivers of new devices."""
        self._table = table
        self._next()

    def load(self, names: list[str]) -> None:
        """Loads modules by any name modprobe would take."""
        self._children.job("load", lambda: drivers.load_named(names), self.report)

    def report(self, result: Any, problem: str) -> None:
        """Logs problems with drivers."""
        for line in result if result is not None else [problem]:
            self._log.write("drivers", line)

    def _read(self, _: int) -> None:
        while True:
            try:
                event = uevent.parse(self._socket.recv(65536))
            except BlockingIOError:
                break
            except OSError:  # more events than the buffer holds: look at all devices again
                self._aliases |= drivers.modaliases(drivers.LATER) if self._table else set()
                continue
            if event.get("ACTION") == "add":
                if self._table is not None and event.get("MODALIAS"):
                    self._aliases.add(event["MODALIAS"])
                if event.get("SUBSYSTEM") == "input":
                    self._loop.after(0.2, self._on_input)
        self._next()

    def _next(self) -> None:
        table = self._table
        if table is None or self._busy or not self._aliases:
            return
        aliases, self._aliases = self._aliases, set()
        self._busy = True
        self._children.job("hotplug", lambda: drivers.load_for(table, aliases), self._loaded)

    def _loaded(self, result: Any, problem: str) -> None:
        self._busy = False
        self.report(result, problem)
        self._next()
