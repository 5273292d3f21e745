"""The event stream (server-sent events), fed line by line. Pure."""

from __future__ import annotations

from typing import Generic, TypeVar

from thimble.client.wire import decode

T = TypeVar("T")


class EventParser(Generic[T]):
    """Give it lines without their ends; it returns a `kind` when an empty line completes one."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._data: list[str] = []

    def line(self, text: str) -> T | None:
        """Comments (keep-alives) and fields other than `data` are passed over."""
        if text:
            name, _, rest = text.partition(":")
            if name == "data":
                self._data.append(rest.removeprefix(" "))
            return None
        whole, self._data = "\n".join(self._data), []
        if not whole or whole == "{}":  # the end, or nothing
            return None
        value: T = decode(whole.encode(), self._kind)
        return value
