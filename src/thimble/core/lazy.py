"""Something made at its first use, so that its modules are not imported on the way to "ready"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Later:
    """Stands for what `make` makes; made when an attribute is first asked for."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make: Callable[[], object] | None = make
        self._made: object = None

    def __getattr__(self, name: str) -> Any:
        if self._make is not None:
            self._made, self._make = self._make(), None
        return getattr(self._made, name)
