"""The loop: keys, answers and time become messages; `update` answers with effects; `view` is drawn.

Ends with 0 when the user leaves or is idle, or the terminal goes away; PID 1 puts the terminal right
whatever happens here.
"""

from __future__ import annotations

import contextlib
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from thimble import __version__
from thimble.core.problem import Problem
from thimble.dcui.api_thread import Link
from thimble.dcui.local import look
from thimble.dcui.model import (
    IDLE_S,
    Ask,
    Attach,
    Detached,
    Effect,
    KeyPress,
    Load,
    Look,
    Measure,
    Message,
    Model,
    Quit,
    TellInit,
    Tick,
)
from thimble.dcui.terminal import Terminal
from thimble.dcui.update import update
from thimble.dcui.view import view

#: A clock, a countdown or a refresh is at most so late.
BEAT_S = 1.0


class Ended(Exception):
    """The loop is over."""


class Console:
    """Terminal, model and API threads, put together."""

    def __init__(self, run: Path, *, utf8: bool, idle_s: float = IDLE_S) -> None:
        self._utf8 = utf8
        self.terminal = Terminal(utf8=utf8)
        self.link = Link(run)
        now = time.monotonic()
        self.model = Model(
            version=__version__, local=look(run), now=now, last_key=now, clock=time.time(), idle_s=idle_s
        )
        self._shown: object = None

    def run(self) -> None:
        """Until somebody leaves."""
        self.terminal.open()
        try:
            while True:
                self._turn()
        except (Ended, EOFError, OSError):
            pass
        finally:
            with contextlib.suppress(OSError):
                self.terminal.close()
            self.link.close()

    def _turn(self) -> None:
        self._send(Tick(time.monotonic(), time.time()))
        self._draw()
        patience = self.terminal.patience
        wait = BEAT_S if patience is None else min(BEAT_S, patience)
        ready, _, _ = select.select([self.terminal, self.link, self.terminal.resized], [], [], wait)
        if self.terminal.resized in ready:
            self.terminal.drained()
            self._shown = None
        for key in self.terminal.keys(ready=self.terminal in ready):
            self._send(KeyPress(key))
        for message in self.link.take() if self.link in ready else []:
            self._send(message)

    def _send(self, message: Message) -> None:
        self.model, effects = update(self.model, message)
        for effect in effects:
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Ask() | Load() | Look() | TellInit():
                self.link.ask(effect)
            case Measure():
                self.terminal.measure()
                self._shown = None
            case Attach():
                self._attach(effect)
            case Quit(token):
                if token:
                    self.link.ask(Ask(to="", verb="session.delete", token=token))
                raise Ended

    def _attach(self, wanted: Attach) -> None:
        from thimble.dcui.attach import attach

        self.terminal.close()
        try:
            left = attach(self.link.client(), wanted, self.terminal.size, self.model.idle_s)
        except Problem as problem:
            left = Detached(problem.detail)
        self.terminal.open()
        self._shown = None
        self.model = update(self.model, Tick(time.monotonic(), time.time()))[0]
        self._send(left)

    def _draw(self) -> None:
        w, h = self.terminal.size
        frame = view(self.model, w, h, utf8=self._utf8)
        if frame != self._shown:
            self.terminal.draw(frame)
            self._shown = frame


def main(argv: list[str] | None = None) -> int:
    """`--run DIR`, `--charset utf-8|ascii`, `--idle SECONDS`."""
    words = sys.argv[1:] if argv is None else argv
    options = dict(zip(words[::2], words[1::2], strict=False))

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Ended

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end)
    try:
        Console(
            Path(options.get("--run", "/run/thimble")),
            utf8=options.get("--charset", "ascii") == "utf-8",
            idle_s=float(options.get("--idle", IDLE_S)),
        ).run()
    except Ended:
        pass
    return 0
