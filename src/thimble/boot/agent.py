"""The agent as a child of PID 1: forked, not executed, so that it starts in a Python that already runs.

It is forked before the state partition is mounted: it imports what it needs while the drivers load, then
waits for `go` (two bytes on a pipe) before its `main` runs.

agent → PID 1: one JSON datagram per message on `/run/thimble/init.sock`, see `events.py`.
PID 1 → agent: SIGPWR (shut down) and SIGUSR2 (reboot), see `power.py`.
"""

from __future__ import annotations

import os
import signal
import sys

from . import linux
from .files import write_setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .children import Children

RUN = "/run/thimble"
STATE = "/var/lib/thimble"
SOCKET = f"{RUN}/init.sock"
ARGV = [
    "--run",
    RUN,
    "--state",
    STATE,
    "--listen",
    "443",
    "--hosted=no",
]
_OPEN_FILES = 65536


class AgentProcess:
    """Launches the agent; the first one waits for `release()`, those after it do not."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._go_read, self._go_write = os.pipe2(os.O_CLOEXEC)
        self._released = False

    def release(self) -> None:
        """State, settings and KVM are ready: lets the first agent run."""
        if not self._released:
            self._released = True
            os.write(self._go_write, b"go")

    def launch(self, on_exit: Callable[[int], None]) -> int:
        """Forks one agent; returns its pid."""
        log = self._children.log_pipe("agent")
        wait_on = -1 if self._released else self._go_read

        def work() -> int:
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            return run(wait_on)

        pid = self._children.fork(work, on_exit, keep=[fd for fd in (log, wait_on) if fd >= 0])
        os.close(log)
        return pid


def run(wait_on: int) -> int:
    """In the child: makes an ordinary process of it, imports the agent, waits for `go`, runs it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    linux.set_open_files(_OPEN_FILES)
    write_setting("/proc/self/oom_score_adj", "-900")
    write_setting("/proc/self/comm", "thimble")
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    sys.argv = ["thimble", *ARGV]
    os.environ.update(PATH="/usr/sbin:/usr/bin", LANG="C.UTF-8", HOME="/root")
    import faulthandler
    import gc
    import importlib

    faulthandler.enable()  # a crash by a signal leaves its traceback in the log
    gc.disable()  # imports leave no garbage: collecting meanwhile is wasted time
    app = importlib.import_module("thimble.app")
    warm = getattr(app, "warm", None)
    if warm is not None:
        warm()
    if wait_on >= 0:
        os.read(wait_on, 2)
        os.close(wait_on)
    gc.freeze()
    gc.enable()
    code = app.main(list(ARGV))
    return code if isinstance(code, int) else 0
