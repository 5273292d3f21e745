"""Console UI sessions: Enter starts the UI on a console, and PID 1's lines there wait until it ends.

    watched ──Enter alone──► in use ──the UI ends──► watched
       ▲──────────────5 s──────────── hung up

While nobody is there this costs one descriptor per console: no process, no timer. Anything but an empty line
is noise and is dropped. The UI is forked, not executed, like the agent; if it fails, the console says so.
"""

from __future__ import annotations

import os
import signal
import sys

from .. import linux
from ..children import describe
from ..files import write_setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..children import Children
    from ..loop import Loop
    from .consoles import SystemConsoles

INVITATION = "press Enter for the console"
PRINTK = "/proc/sys/kernel/printk"
#: Kernel log level on the consoles during a session: only emergencies.
QUIET_PRINTK = "1 4 1 1"
#: Default colours, G0 letters, a visible cursor, wrapping, no mouse, the normal screen, the VT's own palette.
RESET = b"\x1b[0m\x0f\x1b[?25h\x1b[?7h\x1b[?1000l\x1b[?2004l\x1b[?1049l"
VT_RESET = RESET + b"\x1b]R"
HUNG_UP_S = 5.0


class ConsoleSession:
    """One console that can be used. `name` as the kernel calls it; `tty` is what the UI gets."""

    __slots__ = ("fd", "name", "pid", "termios", "tty")

    def __init__(self, name: str) -> None:
        self.name = name
        self.tty = "tty1" if name == "tty0" else name  # tty0 is whichever VT is in front
        self.fd = -1
        self.pid = 0
        self.termios: Any = None


class ConsoleSessions:
    """The sessions of all consoles. `may_start()` is false while the machine shuts down."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        consoles: SystemConsoles,
        say: Callable[[str], None],
        may_start: Callable[[], bool],
        work: Callable[[str], int] | None = None,
    ) -> None:
        self._loop, self._children, self._consoles = loop, children, consoles
        self._say, self._may_start, self._work = say, may_start, work or run
        self._sessions: dict[str, ConsoleSession] = {}
        self._printk = ""
        self._invited = False

    def open(self) -> None:
        """Watches every console and shows the invitation once; called again when more have appeared."""
        for name in self._consoles.names():
            if name not in self._sessions:
                self._sessions[name] = ConsoleSession(name)
                self._watch(self._sessions[name])
        if self._sessions and not self._invited:
            self._invited = True
            self._consoles.show(INVITATION)

    def _watch(self, session: ConsoleSession) -> None:
        try:
            session.fd = os.open(
                f"/dev/{session.tty}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            )
            self._loop.watch(session.fd, lambda _: self._typed(session))
        except OSError:
            self._hung_up(session)

    def _forget(self, session: ConsoleSession) -> None:
        if session.fd >= 0:
            self._loop.unwatch(session.fd)
            os.close(session.fd)
            session.fd = -1

    def _hung_up(self, session: ConsoleSession) -> None:
        """A line that hung up would be readable for ever: it is not watched for `HUNG_UP_S`."""
        self._forget(session)
        self._loop.after(HUNG_UP_S, lambda: self._watch(session))

    def _typed(self, session: ConsoleSession) -> None:
        """The terminal gives whole lines: one read, one line. An empty one is Enter."""
        try:
            line = os.read(session.fd, 4096)
        except BlockingIOError:
            return
        except OSError:
            line = b""
        if not line:
            self._hung_up(session)
        elif line in (b"\n", b"\r", b"\r\n") and self._may_start():
            self._start(session)

    def _start(self, session: ConsoleSession) -> None:
        import termios

        session.termios = termios.tcgetattr(session.fd)
        self._forget(session)
        self._consoles.hold(session.name)
        self._quieten()
        log = self._children.log_pipe(f"console-{session.tty}")

        def work() -> int:
            take_terminal(session.tty, log)
            return self._work(session.tty)

        session.pid = self._children.fork(work, lambda status: self._ended(session, status), keep=(log,))
        os.close(log)

    def _ended(self, session: ConsoleSession, status: int) -> None:
        session.pid = 0
        self._reset_terminal(session)
        if not any(other.pid for other in self._sessions.values()):
            write_setting(PRINTK, self._printk)
        self._consoles.release(session.name)
        if status and self._may_start():
            output = self._children.last_output(f"console-{session.tty}")
            self._say(f"the console UI on {session.tty} ended ({describe(status)}){output}")
        if self._may_start():
            self._consoles.show(INVITATION)
        self._watch(session)

    def _quieten(self) -> None:
        if not any(session.pid for session in self._sessions.values()):
            try:
                with open(PRINTK) as file:
                    self._printk = " ".join(file.read().split())
            except OSError:
                self._printk = "3 4 1 7"
            write_setting(PRINTK, QUIET_PRINTK)

    def _reset_terminal(self, session: ConsoleSession) -> None:
        """Restores the terminal, however the UI ended, without waiting for a line that takes no bytes."""
        import termios

        try:
            fd = os.open(f"/dev/{session.tty}", os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            termios.tcflush(fd, termios.TCIOFLUSH)
            termios.tcsetattr(fd, termios.TCSANOW, session.termios)
            os.write(fd, (VT_RESET if session.tty.startswith("tty1") else RESET) + b"\r\n")
        except (OSError, termios.error):
            pass
        finally:
            os.close(fd)


def take_terminal(tty: str, log: int) -> None:
    """In the child: makes this its controlling terminal; stderr goes to the log."""
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
    write_setting("/proc/self/oom_score_adj", "500")  # under memory pressure it is killed before any guest
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
