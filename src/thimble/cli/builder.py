"""The way to the parts that run here instead of on a host: the image builder, the lab, the agent.

They are looked up when they are used: a client may be installed without them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from thimble.cli.progress import meter
from thimble.cli.session import CliSession
from thimble.core.problem import Code, Problem

Report = Callable[[str, float | None, str], None]


def part(name: str) -> Any:
    """The module `thimble.<name>`. Raises `Problem` UNSUPPORTED when it is not installed."""
    try:
        return importlib.import_module(f"thimble.{name}")
    except ModuleNotFoundError as error:
        raise Problem(
            Code.UNSUPPORTED,
            f"{name} is not part of this installation of thimble ({error})",
            hint="Run it from a checkout of the repository.",
        ) from error


@contextmanager
def reporting(session: CliSession) -> Iterator[Report]:
    """The callback such a part tells its progress with, shown as all progress is."""
    with meter(quiet=session.quiet or session.json) as shown:
        yield shown.at
