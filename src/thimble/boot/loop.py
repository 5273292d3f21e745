"""The one event loop of PID 1: descriptors, timers and signals. Knows nothing of what they mean.

A callback that raises is logged and the loop goes on: an error in PID 1 must not end
the virtual machines. Too many errors in a short time (`FATAL` within a minute) end the loop.
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import time
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FATAL = 20
SIGNALS = (signal.SIGCHLD, signal.SIGINT, signal.SIGPWR, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Timer:
    """A callback due once at `at` (CLOCK_MONOTONIC); `cancel()` makes it void."""

    __slots__ = ("at", "call")

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Timer) -> bool:
        return self.at < other.at

    def cancel(self) -> None:
        self.call = None


class Loop:
    """epoll with timers; `on_signal` gets each signal number once per delivery round."""

    def __init__(self, on_error: Callable[[str, BaseException], None]) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._on_error = on_error
        self._errors: list[float] = []
        self._wake, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.on_signal: Callable[[int], None] = lambda _number: None

    def catch_signals(self) -> None:
        """Routes the signals of PID 1 into the loop."""
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self.watch(self._wake, self._signalled)

    def watch(self, fd: int, call: Callable[[int], None], mask: int = select.EPOLLIN) -> None:
        """Calls `call(events)` whenever the descriptor is ready; replaces an earlier watch of it."""
        if fd in self._watched:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._watched[fd] = call

    def unwatch(self, fd: int) -> None:
        """Stops watching; call before closing the descriptor."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Calls `call()` once, `seconds` from now."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        """Runs until an error is one too many."""
        while True:
            self.run_once(self._until_next())

    def run_once(self, timeout: float) -> None:
        """One round: waits for at most `timeout` seconds (-1: for ever), then calls what is due."""
        for fd, events in self._epoll.poll(timeout):
            call = self._watched.get(fd)
            if call is not None:
                self._guard(partial(call, events))
        now = time.monotonic()
        while self._timers and self._timers[0].at <= now:
            timer = heapq.heappop(self._timers)
            if timer.call is not None:
                self._guard(timer.call)

    def after_fork(self) -> None:
        """In a child: gives up the signals and descriptors of the loop."""
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        self._epoll.close()

    def _until_next(self) -> float:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].at - time.monotonic()) if self._timers else -1.0

    def _signalled(self, _: int) -> None:
        for number in sorted(set(os.read(self._wake, 4096))):
            self._guard(partial(self.on_signal, number))

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            now = time.monotonic()
            self._errors = [*(at for at in self._errors if now - at < 60.0), now]
            if len(self._errors) >= FATAL:
                raise
            self._on_error("an error in PID 1", error)
