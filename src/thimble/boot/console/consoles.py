"""Console output: every line of PID 1 goes to all consoles, and none is ever waited for.

A console that takes no bytes, or is held because the console UI has it, keeps the last `KEEP` bytes queued
and gets them later.
"""

from __future__ import annotations

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..loop import Loop

KEEP = 16384
#: Seconds a password made at boot is shown again after the console UI: the screen it was on may be gone.
LOGIN_KEPT_S = 3600.0
ACTIVE = "/sys/class/tty/console/active"


class SystemConsoles:
    """All consoles the kernel names as active."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._open: dict[str, int] = {}
        self._pending: dict[int, bytes] = {}
        self._held: set[str] = set()
        self._login, self._login_until = "", 0.0
        self._kmsg = _open("/dev/kmsg")
        self.refresh()

    def refresh(self) -> None:
        """Opens consoles that appeared (hvc0 comes with its driver)."""
        try:
            with open(ACTIVE) as file:
                names = file.read().split()
        except OSError:
            names = ["console"]
        for name in names:
            if name not in self._open:
                fd = _open(f"/dev/{name}")
                if fd >= 0:
                    self._open[name] = fd

    def names(self) -> list[str]:
        """Those that are open, as the kernel calls them."""
        return list(self._open)

    def hold(self, name: str) -> None:
        """The console UI draws there: lines are queued."""
        self._held.add(name)
        if name in self._open:
            self._loop.unwatch(self._open[name])

    def release(self, name: str) -> None:
        """Lines go there again, queued ones first.

        Opened anew: the end of a session hangs its terminal up, for everybody who has it open.
        """
        self._held.discard(name)
        old = self._open.pop(name, -1)
        waiting = self._pending.pop(old, b"")
        if old >= 0:
            self._loop.unwatch(old)
            os.close(old)
        fd = _open(f"/dev/{name}")
        if fd < 0:
            return
        self._open[name], self._pending[fd] = fd, waiting
        if time.monotonic() < self._login_until:
            self._add(fd, self._login)
        self._flush(name, fd)

    def say(self, line: str) -> None:
        """`thimble: LINE` on every console and in the kernel log."""
        self.note(line)
        self.show(line)

    def show(self, line: str) -> None:
        """On every console and nowhere else: for secrets."""
        for name, fd in list(self._open.items()):
            self._add(fd, line)
            self._flush(name, fd)

    def _add(self, fd: int, line: str) -> None:
        text = f"thimble: {line}\n".encode("utf-8", "replace")
        self._pending[fd] = (self._pending.get(fd, b"") + text)[-KEEP:]

    def show_login(self, line: str) -> None:
        """Shows the first password, and once more after a console UI session within `LOGIN_KEPT_S`."""
        self._login, self._login_until = line, time.monotonic() + LOGIN_KEPT_S
        self.show(line)

    def note(self, line: str) -> None:
        """To the kernel log only."""
        if self._kmsg >= 0:
            try:
                os.write(self._kmsg, f"<6>thimble: {line}\n".encode("utf-8", "replace")[:900])
            except OSError:
                pass

    def _flush(self, name: str, fd: int) -> None:
        if name in self._held:
            return
        data = self._pending.get(fd, b"")
        try:
            written = os.write(fd, data) if data else 0
        except BlockingIOError:
            written = 0
        except OSError:
            self._loop.unwatch(fd)
            os.close(fd)
            self._pending.pop(fd, None)
            del self._open[name]
            return
        self._pending[fd] = data[written:]
        if self._pending[fd]:
            self._loop.watch(fd, lambda _: self._flush(name, fd), select.EPOLLOUT)
        else:
            self._loop.unwatch(fd)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return -1
