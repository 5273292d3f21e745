"""The verb of the event stream, over `state.events`."""

from __future__ import annotations

from collections.abc import AsyncIterator

from thimble.contract.call import Call
from thimble.contract.common import Event
from thimble.core.problem import Code, Problem
from thimble.state.events import Events


class EventService:
    """`event.stream`: batches of events after the revision the caller names."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def stream(self, call: Call[None]) -> AsyncIterator[list[Event]]:
        """Raises `Problem` GONE at once, not at the first step. Without `after`: what comes from now on."""
        after = self._events.rev
        if "after" in call.query:
            text = call.query["after"]
            if not text.isascii() or not text.isdigit() or len(text) > 18:
                raise Problem(Code.INVALID, "after is a revision, a whole number", where="?after")
            after = int(text)
        self._events.since(after)
        return self._events.follow(after)
