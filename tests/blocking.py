"""The agent, with a watch on its loop: who waits for a disk, a mount or a name there holds up everybody else.

    python tests/blocking.py --hosted yes …   as `python -m thimble.app`, and each offence becomes a line of
                                              the file that THIMBLE_BLOCKING_FILE names

Nothing is measured, so a slow machine changes nothing: calls that may take as long as a device or a server
likes are not made on the loop's thread after "ready", however quick they are here.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

#: (module or class, function)
CALLS: tuple[tuple[Any, str], ...] = (
    (os, "fsync"),
    (os, "fdatasync"),
    (os, "sync"),
    (os, "statvfs"),
    (os, "posix_fallocate"),
    (os, "copy_file_range"),
    (fcntl, "flock"),
    (fcntl, "lockf"),
    (time, "sleep"),
    (socket, "getaddrinfo"),
    (subprocess, "run"),
    (subprocess.Popen, "wait"),
    (subprocess.Popen, "communicate"),
)
#: Opening one of these asks no disk.
HARMLESS = tuple(
    f"/dev/{name}" for name in ("null", "zero", "urandom", "kvm", "vhost", "net/", "log", "ptmx", "kmsg")
)
DEPTH = 6


class Watch:
    """`tell` gets one line for each place, not for each time. `armed` is asked at every call."""

    def __init__(self, tell: Callable[[str], object], armed: Callable[[], bool] = lambda: True) -> None:
        self._tell = tell
        self._armed = armed
        self._told: set[str] = set()

    def begin(self, calls: Iterable[tuple[Any, str]] = CALLS) -> None:
        """From now on, in this process, for good."""
        for owner, name in calls:
            setattr(owner, name, self.watched(f"{owner.__name__}.{name}", getattr(owner, name)))
        sys.addaudithook(self._audit)

    def watched(self, what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*args: Any, **options: Any) -> Any:
            self.called(what)
            return real(*args, **options)

        return call

    def called(self, what: str) -> None:
        """`what` is about to be done by this thread."""
        if threading.current_thread() is threading.main_thread() and _in_loop() and self._armed():
            line = f"{what}  {_place()}"
            if line not in self._told:
                self._told.add(line)
                self._tell(line)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(args[0], str) or not args[0].startswith("/dev/"):
            return
        if not args[0].startswith(HARMLESS):
            self.called(f"open {args[0]}")


def _in_loop() -> bool:
    return asyncio._get_running_loop() is not None


def _place() -> str:
    """Our own frames, the innermost first."""
    frames = [frame for frame in traceback.extract_stack() if "/thimble/" in frame.filename]
    names = [f"{frame.filename.rpartition('/thimble/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return " < ".join(names[-1 : -DEPTH - 1 : -1])


def main() -> int:
    """`thimble.app`, watched from when it is ready."""
    from thimble import app
    from thimble.http import server
    from thimble.sys import mount

    armed = threading.Event()
    serve = server.serve

    async def until_ready(*args: Any, ready: Callable[[int], object], **options: Any) -> None:
        def told(port: int) -> object:
            answer = ready(port)
            armed.set()
            return answer

        await serve(*args, ready=told, **options)

    server.serve = until_ready
    path = os.environ.get("THIMBLE_BLOCKING_FILE", os.devnull)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    watch = Watch(lambda line: os.write(file, line.encode() + b"\n"), armed.is_set)
    watch.begin((*CALLS, (mount, "mount"), (mount, "unmount")))
    return app.main()


def offences(file: Path) -> list[str]:
    """What was told so far."""
    return file.read_text().splitlines() if file.exists() else []


if __name__ == "__main__":
    sys.exit(main())
