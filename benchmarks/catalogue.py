"""All promises in the order of the table; a promise is a module with NAME, TITLE and `measure`."""

from __future__ import annotations

from typing import Protocol

from benchmarks import blackout, idle, image_bytes, listing, media, power_on, start
from benchmarks.context import Context
from benchmarks.promise import Row


class Measurable(Protocol):
    """What every promise's module offers."""

    NAME: str
    TITLE: str

    def measure(self, context: Context) -> list[Row]: ...


PROMISES: tuple[Measurable, ...] = (image_bytes, power_on, media, blackout, idle, start, listing)
