"""The children of PID 1: Python jobs (fork), programs (posix_spawn), and the reaping of orphaned processes.

Whatever may wait for hardware (a driver's probe, a mount) is a job, so that PID 1 itself never waits.
"""

from __future__ import annotations

import marshal
import os
import signal

from .ramlog import LineSplitter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .loop import Loop, Timer
    from .ramlog import RamLog

# Seconds the boot waits for a job, by its name: a driver or a disk may hang for ever, and the host gets ready
# all the same. Generous, for an emulated server on a busy machine.
DEADLINES = {
    "kvm": 60.0,
    "disks": 120.0,
    "look": 120.0,
    "raid": 60.0,
    "mount": 60.0,
    "document": 60.0,
    "nics": 120.0,
    "firmware": 60.0,
    "rest": 300.0,
    "discs": 120.0,
}

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin", "LANG": "C.UTF-8", "HOME": "/root"}


class Children:
    """Starts children and calls back with their wait status. Orphaned processes are reaped silently."""

    def __init__(self, loop: Loop, log: RamLog) -> None:
        self._loop, self._log = loop, log
        self._waiting: dict[int, Callable[[int], None]] = {}
        self._last_lines: dict[str, str] = {}
        self.at_fork: list[Callable[[], None]] = [loop.after_fork]

    def last_output(self, name: str) -> str:
        """`: ` and the last line this child wrote, to be appended to a message; it is forgotten then."""
        said = self._last_lines.pop(name, "")
        return f": {said[:200]}" if said else ""

    def reap(self) -> None:
        """Collects all that ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            call = self._waiting.pop(pid, None)
            if call is not None:
                call(status)

    def fork(self, work: Callable[[], int], on_exit: Callable[[int], None], keep: Sequence[int] = ()) -> int:
        """A child running `work()` and exiting with its result; descriptors but `keep` and 0-2 are closed."""
        pid = os.fork()
        if pid == 0:
            self._in_child(work, keep)
        self._waiting[pid] = on_exit
        return pid

    def job(
        self,
        name: str,
        work: Callable[[], Any],
        done: Callable[[Any, str], None],
        late: Callable[[str], None] | None = None,
        too_late: Callable[[], None] | None = None,
    ) -> int:
        """Runs `work()` in a child; `done(result, "")` or `done(None, problem)`. Results are plain data.

        With `late`, a job that has a deadline and passes it calls `late(why)` and never `done`: the child
        keeps running, its end is only logged, and `too_late()` undoes what it did if it worked after all.
        """
        is_late = False
        timer: Timer | None = None

        def overdue() -> None:
            nonlocal is_late
            is_late = True
            why = f"timed out after {DEADLINES[name]:.0f} s"
            self._log.write(name, f"{why}; the boot continues without it")
            if late is not None:
                late(why)

        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

        def child() -> int:
            try:
                answer: tuple[Any, str] = (work(), "")
            except Exception as error:
                answer = (None, in_words(error))
            os.write(write, marshal.dumps(answer))
            return 0

        def ended(status: int) -> None:
            try:
                data = os.read(read, 65536)
            except BlockingIOError:
                data = b""
            os.close(read)
            result, problem = marshal.loads(data) if data else (None, f"died: {describe(status)}")
            if problem:
                self._log.write(name, problem)
            if is_late:
                self._log.write(
                    name, f"ended after its deadline: {result if result is not None else problem}"
                )
                if too_late is not None and not problem:
                    too_late()
                return
            if timer is not None:
                timer.cancel()
            done(result, problem)

        pid = self.fork(child, ended, keep=(write,))
        os.close(write)
        if late is not None and name in DEADLINES:
            timer = self._loop.after(DEADLINES[name], overdue)
        return pid

    def spawn(
        self,
        argv: list[str],
        on_exit: Callable[[int], None],
        *,
        name: str = "",
        collect: list[str] | None = None,
    ) -> int:
        """Starts a program; its output goes to the log, or to `collect`."""
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write, True)
        name = name or argv[0].rsplit("/", 1)[-1]
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, write, 1),
            (os.POSIX_SPAWN_DUP2, write, 2),
        ]
        try:
            pid = os.posix_spawn(
                argv[0],
                argv,
                _environment(),
                file_actions=actions,
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except OSError as error:
            os.close(read)
            self._log.write(name, f"cannot start: {error}")
            self._loop.after(0, lambda: on_exit(127 << 8))
            return 0
        finally:
            os.close(write)
        drain = self._drain(read, name, collect)

        def ended(status: int) -> None:
            drain()
            on_exit(status)

        self._waiting[pid] = ended
        return pid

    def log_pipe(self, name: str) -> int:
        """The writing end of a pipe whose lines go to the log; the caller closes it after passing it on."""
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write, True)
        self._drain(read, name, None)
        return write

    def _drain(self, read: int, name: str, collect: list[str] | None) -> Callable[[], None]:
        lines = LineSplitter()
        is_open = True

        def take(_: int = 0) -> None:
            nonlocal is_open
            while is_open:
                try:
                    data = os.read(read, 65536)
                except BlockingIOError:
                    return
                for line in lines.feed(data):
                    if collect is not None:
                        collect.append(line)
                    else:
                        self._last_lines[name] = line
                        self._log.write(name, line)
                if not data:
                    is_open = False
                    self._loop.unwatch(read)
                    os.close(read)

        self._loop.watch(read, take)
        return take

    def _in_child(self, work: Callable[[], int], keep: Sequence[int]) -> None:
        code = 1
        try:
            for call in self.at_fork:
                call()
            close_all_but(keep)
            code = work()
        except BaseException as error:
            _print_error(error)
        finally:
            os._exit(code)


def close_all_but(keep: Sequence[int]) -> None:
    """Closes all descriptors above 2 except these."""
    start = 3
    for fd in sorted(set(keep)):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, 4096)


def describe(status: int) -> str:
    """A wait status as text."""
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def in_words(error: Exception) -> str:
    """An error as an operator reads it; our own messages are raised as OSError with number 0."""
    if isinstance(error, OSError) and error.strerror and not error.errno:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def _environment() -> Mapping[str, str]:
    return ENVIRONMENT


def _print_error(error: BaseException) -> None:
    import traceback

    os.write(2, "".join(traceback.format_exception(error)).encode("utf-8", "replace"))
