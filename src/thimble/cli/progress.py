"""How progress is shown, on standard error: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from thimble.contract.common import Task
from thimble.core.units import show_size

if TYPE_CHECKING:
    from rich.progress import Progress


class ProgressMeter(Protocol):
    """`at` shows what is being done, and how much of it, 0 to 1 (None: unknown)."""

    def at(self, what: str, done: float | None, detail: str = "") -> None: ...


class NoProgress:
    """For --quiet and --json."""

    def at(self, what: str, done: float | None, detail: str = "") -> None:
        """Say nothing."""


class ProgressLines:
    """For logs and pipes: a line at each new step, and at each tenth of it."""

    def __init__(self) -> None:
        self._last: tuple[str, str, int] | None = None

    def at(self, what: str, done: float | None, detail: str = "") -> None:
        """Print, if it is news."""
        news = (what, "" if done is not None else detail, -1 if done is None else int(done * 10))
        if news != self._last:
            self._last = news
            share = "" if done is None else f" {done:.0%}"
            print(f"{what}{share} {detail}".rstrip(), file=sys.stderr, flush=True)


class ProgressBar:
    """For a terminal; it disappears at the end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._row = progress.add_task("", total=None)

    def at(self, what: str, done: float | None, detail: str = "") -> None:
        """Redraw."""
        words = f"{what} {detail}".strip()
        self._progress.update(self._row, description=words, completed=done or 0.0, total=done and 1.0)


@contextmanager
def meter(*, quiet: bool) -> Iterator[ProgressMeter]:
    """The one that fits where standard error goes."""
    if quiet:
        yield NoProgress()
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            yield ProgressBar(progress)
    else:
        yield ProgressLines()


def task_on(shown: ProgressMeter, task: Task) -> None:
    """Shows a task's state."""
    step = task.step.replace("_", " ").replace(".", " ")
    shown.at(task.verb, task.progress or None, step)


def bytes_on(shown: ProgressMeter, what: str, sent: int, total: int) -> None:
    """An upload's."""
    shown.at(what, sent / total if total else 1.0, f"{show_size(sent)} of {show_size(total)}")
