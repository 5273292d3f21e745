"""The event stream (server-sent events), fed line by line. Pure."""

from __future__ import annotations

import msgspec

from thimble.client.wire import decode
from thimble.contract.common import Event


class EventParser:
    """Give it lines without their ends; it returns an `Event` when an empty line completes one."""

    def __init__(self) -> None:
        self._data: list[str] = []

    def line(self, text: str) -> Event | None:
        """Comments (keep-alives) and fields other than `data` are passed over."""
        if text:
            name, _, value = text.partition(":")
            if name == "data":
                self._data.append(value.removeprefix(" "))
            return None
        whole, self._data = "\n".join(self._data), []
        if not whole or "rev" not in msgspec.json.decode(whole.encode(), type=dict[str, object]):
            return None
        event: Event = decode(whole.encode(), Event)
        return event
