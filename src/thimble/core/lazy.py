"""Something made when it is first asked for, so that its modules are not imported on the way to "ready"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Lazy(Generic[T]):
    """`get` makes it the first time; `made` looks without making it."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._value: T | None = None

    def get(self) -> T:
        """The one instance."""
        if self._value is None:
            self._value = self._make()
        return self._value

    @property
    def made(self) -> T | None:
        """The instance, if somebody has asked for it."""
        return self._value
