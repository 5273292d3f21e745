"""A VM's serial line on this terminal, until Ctrl-] and a dot. The screen is closed meanwhile."""

from __future__ import annotations

import os
import select
import time
import tty

from thimble.client.escape import HELP, EscapeParser, Key, resize_command
from thimble.client.plain import PlainClient, PlainSocket
from thimble.core.problem import Problem
from thimble.dcui.model import Attach, Detached

#: After the guest's output: default colours, a visible cursor, no mouse reports, the normal screen.
CALM = b"\x1b[0m\x0f\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?2004l\x1b[?1049l"


def attach(client: PlainClient, wanted: Attach, size: tuple[int, int], idle_s: float) -> Detached:
    """Until the user leaves, the line closes, or nobody types for `idle_s` seconds."""
    try:
        line = PlainSocket(client, "vm.console", {"vm": wanted.vm}, wanted.token)
    except Problem as problem:
        return Detached(problem.detail)
    tty.setraw(0)
    _show(f"[console of {wanted.name}; {HELP}]\r\n".encode())
    try:
        return _run(line, size, idle_s)
    except Problem as problem:
        return Detached(problem.detail)
    except OSError as error:
        return Detached(f"lost the console: {error}")
    finally:
        line.close()
        _show(CALM)


def _run(line: PlainSocket, size: tuple[int, int], idle_s: float) -> Detached:
    escape, typed_at = EscapeParser(), time.monotonic()
    while (left := typed_at + idle_s - time.monotonic()) > 0:
        ready, _, _ = select.select([0, line], [], [], left)
        if line in ready:
            said = line.receive()
            if said is None:
                return Detached(f"The console was closed{': ' + line.why if line.why else ''}.")
            _show(said)
        if 0 in ready:
            typed, typed_at = os.read(0, 4096), time.monotonic()
            if not typed:
                return Detached("the terminal is gone")
            for action in escape.feed(typed):
                if action is Key.LEAVE:
                    return Detached()
                if isinstance(action, bytes):
                    line.send(action)
                elif action is Key.RESIZE:
                    line.send(resize_command(size[1], size[0]))
                else:
                    _show(f"\r\n[{HELP}]\r\n".encode())
    return Detached("Nobody typed.")


def _show(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
