"""A person at a console: Enter starts the console UI there, and PID 1's lines wait until it ends.

    watched ──Enter alone──► taken ──the UI ends──► watched
       ▲──────────────5 s──────────── hung up

While nobody is there this costs one descriptor per console: no process, no timer. Anything but an empty line
is noise and is dropped. The UI is forked, not executed, as the agent is; a fall of it is said on the console.
"""

from __future__ import annotations

import os
import signal
import sys

from . import linux
from .bridge import write_setting
from .children import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .children import Children
    from .consoles import Consoles
    from .loop import Loop

INVITATION = "press Enter for the console"
PRINTK = "/proc/sys/kernel/printk"
#: Kernel messages on the consoles while somebody works there: only the machine's last words.
QUIET = "1 4 1 1"
#: Default colours, G0 letters, a visible cursor, wrapping, no mouse, the normal screen, the VT's own palette.
CALM = b"\x1b[0m\x0f\x1b[?25h\x1b[?7h\x1b[?1000l\x1b[?2004l\x1b[?1049l"
VT_CALM = CALM + b"\x1b]R"
HUNG_UP_S = 5.0


class Seat:
    """One console somebody may sit at. `name` as the kernel calls it; `tty` is what the UI gets."""

    __slots__ = ("fd", "name", "pid", "termios", "tty")

    def __init__(self, name: str) -> None:
        self.name = name
        self.tty = "tty1" if name == "tty0" else name  # tty0 is whichever is in front: nobody's own
        self.fd = -1
        self.pid = 0
        self.termios: Any = None


class Seats:
    """All of them. `may()` is false on the way down."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        consoles: Consoles,
        say: Callable[[str], None],
        may: Callable[[], bool],
        work: Callable[[str], int] | None = None,
    ) -> None:
        self._loop, self._children, self._consoles = loop, children, consoles
        self._say, self._may, self._work = say, may, work or run
        self._seats: dict[str, Seat] = {}
        self._printk = ""
        self._invited = False

    def open(self) -> None:
        """Watches every console that is there, and invites once; also when more have appeared."""
        for name in self._consoles.names():
            if name not in self._seats:
                self._seats[name] = Seat(name)
                self._watch(self._seats[name])
        if self._seats and not self._invited:
            self._invited = True
            self._consoles.show(INVITATION)

    def _watch(self, seat: Seat) -> None:
        try:
            seat.fd = os.open(f"/dev/{seat.tty}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            self._loop.watch(seat.fd, lambda _: self._typed(seat))
        except OSError:
            self._hung_up(seat)

    def _forget(self, seat: Seat) -> None:
        if seat.fd >= 0:
            self._loop.forget(seat.fd)
            os.close(seat.fd)
            seat.fd = -1

    def _hung_up(self, seat: Seat) -> None:
        """A line that is gone would be readable for ever: it is left alone for a while."""
        self._forget(seat)
        self._loop.after(HUNG_UP_S, lambda: self._watch(seat))

    def _typed(self, seat: Seat) -> None:
        """The terminal gives whole lines: one read, one line. An empty one is Enter."""
        try:
            line = os.read(seat.fd, 4096)
        except BlockingIOError:
            return
        except OSError:
            line = b""
        if not line:
            self._hung_up(seat)
        elif line in (b"\n", b"\r", b"\r\n") and self._may():
            self._start(seat)

    def _start(self, seat: Seat) -> None:
        import termios

        seat.termios = termios.tcgetattr(seat.fd)
        self._forget(seat)
        self._consoles.hold(seat.name)
        self._quieten()
        log = self._children.log_pipe(f"console-{seat.tty}")

        def work() -> int:
            sit(seat.tty, log)
            return self._work(seat.tty)

        seat.pid = self._children.fork(work, lambda status: self._ended(seat, status), keep=(log,))
        os.close(log)

    def _ended(self, seat: Seat, status: int) -> None:
        seat.pid = 0
        self._calm(seat)
        if not any(other.pid for other in self._seats.values()):
            write_setting(PRINTK, self._printk)
        self._consoles.release(seat.name)
        if status and self._may():
            words = self._children.words(f"console-{seat.tty}")
            self._say(f"the console on {seat.tty} ended ({describe(status)}){words}")
        if self._may():
            self._consoles.show(INVITATION)
        self._watch(seat)

    def _quieten(self) -> None:
        if not any(seat.pid for seat in self._seats.values()):
            try:
                with open(PRINTK) as file:
                    self._printk = " ".join(file.read().split())
            except OSError:
                self._printk = "3 4 1 7"
            write_setting(PRINTK, QUIET)

    def _calm(self, seat: Seat) -> None:
        """The terminal as it was, however the UI ended; a line that takes no bytes is not waited for."""
        import termios

        try:
            fd = os.open(f"/dev/{seat.tty}", os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            termios.tcflush(fd, termios.TCIOFLUSH)
            termios.tcsetattr(fd, termios.TCSANOW, seat.termios)
            os.write(fd, (VT_CALM if seat.tty.startswith("tty1") else CALM) + b"\r\n")
        except (OSError, termios.error):
            pass
        finally:
            os.close(fd)


def sit(tty: str, log: int) -> None:
    """In the child: a session of its own on this terminal; what it says on stderr goes to the log."""
    import fcntl
    import termios

    os.setsid()
    fd = os.open(f"/dev/{tty}", os.O_RDWR)
    fcntl.ioctl(fd, termios.TIOCSCTTY, 1)
    for number in (0, 1):
        os.dup2(fd, number)
    os.dup2(log, 2)
    for extra in (fd, log):
        if extra > 2:
            os.close(extra)


def run(tty: str) -> int:
    """In the child: makes an ordinary process of it and runs the console UI."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    linux.set_open_files(1024)
    write_setting("/proc/self/oom_score_adj", "500")  # it may go before any guest
    write_setting("/proc/self/comm", "thimble-console")
    screen = tty.startswith("tty") and tty[3:].isdigit()
    os.environ.update(
        PATH="/usr/sbin:/usr/bin", LANG="C.UTF-8", HOME="/root", TERM="linux" if screen else "vt220"
    )
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    import gc
    import importlib

    gc.disable()
    main = importlib.import_module("thimble.dcui.main").main
    gc.freeze()
    gc.enable()
    code = main(["--run", "/run/thimble", "--charset", "utf-8" if screen else "ascii"])
    return code if isinstance(code, int) else 0
