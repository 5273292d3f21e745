"""Progress of the builder: one callback."""

from __future__ import annotations

import sys
from collections.abc import Callable

Report = Callable[[str, float | None, str], None]
"""report(stage, done, detail): `done` is 0…1, or None where nobody knows."""


def silent(stage: str, done: float | None, detail: str) -> None:
    """Say nothing."""


def on_stderr(stage: str, done: float | None, detail: str) -> None:
    """Plain lines for a log or a pipe."""
    share = "" if done is None else f" {done:4.0%}"
    print(f"{stage}{share} {detail}".rstrip(), file=sys.stderr, flush=True)
