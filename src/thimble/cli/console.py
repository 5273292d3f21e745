"""The raw terminal around a VM's serial console; a pipe on either side works too.

Two directions, two threads: this one prints what the guest says, the other sends what is typed. Whoever ends
first closes the WebSocket, which ends the other.
Invariant: the terminal is as it was before, however this ends.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from thimble.client.escape import HELP, EscapeParser, Key, resize_command
from thimble.core.problem import Code, Problem

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

#: After the guest's output: default colours, a visible cursor, no mouse reports, no alternate screen.
CALM = b"\x1b[0m\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?2004l\x1b[?1049l"


def attach(link: ClientConnection, name: str, *, quiet: bool = False, timeout: float | None = None) -> None:
    """Connect this terminal (or pipes) with the console until the user leaves, it closes, or `timeout`.

    Raises `Problem` UNAVAILABLE when the host closes it for a reason.
    """
    terminal = os.isatty(sys.stdin.fileno())
    if not quiet and terminal:
        print(f"[console of {name}; {HELP}]", file=sys.stderr, flush=True)
    stop, stopping = os.pipe()
    typing = threading.Thread(
        target=_type, args=(link, stop, EscapeParser() if terminal else None), name="typing", daemon=True
    )
    with _signals(), _raw(sys.stdin.fileno()) if terminal else nullcontext():
        typing.start()
        try:
            _print(link, None if timeout is None else time.monotonic() + timeout)
        finally:
            os.write(stopping, b"\0")
            with suppress(Exception):
                link.close()
            typing.join(timeout=5)
            os.close(stopping)
            os.close(stop)
    if not quiet and terminal:
        print(f"\r\n[left the console of {name}]", file=sys.stderr, flush=True)


def _print(link: ClientConnection, deadline: float | None) -> None:
    """Until the connection is closed. A text frame is not the guest's, so it is not shown."""
    from websockets.exceptions import ConnectionClosed

    while True:
        try:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            said = link.recv(timeout=left)
        except TimeoutError:
            return
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code not in (1000, 1001, 1005):
                raise Problem(
                    Code.UNAVAILABLE, f"the host closed the console: {closed.rcvd.reason or closed.rcvd.code}"
                ) from closed
            if closed.rcvd is None and closed.sent is None:
                raise Problem(Code.UNAVAILABLE, "lost the connection to the console") from closed
            return
        if isinstance(said, bytes):
            _write_all(sys.stdout.fileno(), said)


def _type(link: ClientConnection, stop: int, escape: EscapeParser | None) -> None:
    """Until the user leaves or `stop` is readable. The end of a pipe ends the typing, not the console."""
    from websockets.exceptions import ConnectionClosed

    source = sys.stdin.fileno()
    with suppress(ConnectionClosed, OSError):
        while True:
            ready, _, _ = select.select([source, stop], [], [])
            if stop in ready:
                return
            typed = os.read(source, 65536)
            if not typed:
                return
            for action in escape.feed(typed) if escape else [typed]:
                if action is Key.LEAVE:
                    link.close()
                    return
                _do(link, action)


def _do(link: ClientConnection, action: bytes | Key) -> None:
    if isinstance(action, bytes):
        link.send(action)
    elif action is Key.RESIZE:
        size = os.get_terminal_size(sys.stdin.fileno())
        link.send(resize_command(size.lines, size.columns))
    else:
        _write_all(sys.stderr.fileno(), f"\r\n[{HELP}]\r\n".encode())


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Every key goes through as it is, and the terminal is put back after."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        if os.isatty(sys.stdout.fileno()):
            with suppress(OSError):
                _write_all(sys.stdout.fileno(), CALM)
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like Ctrl-C, so that the terminal is put back."""

    def unwind(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
