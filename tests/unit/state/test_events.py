"""The ring of events: no gaps, GONE, listeners, followers."""

from __future__ import annotations

import asyncio

import pytest

from thimble.core.problem import Code, Problem
from thimble.state.events import Events


def ring(keep: int = 4) -> Events:
    return Events(base=100, clock=lambda: 1.0, keep=keep)


def revisions(events: Events, after: int) -> list[int]:
    return [event.rev for event in events.since(after)]


def test_revisions_have_no_gaps() -> None:
    events = ring()
    assert [events.publish("vm.changed", "x").rev for _ in range(3)] == [101, 102, 103]
    assert revisions(events, 100) == [101, 102, 103]
    assert revisions(events, 102) == [103]
    assert revisions(events, 103) == []


@pytest.mark.parametrize("after", [0, 99, 101, 105, 10_000])
def test_what_left_the_ring_or_never_was_is_gone(after: int) -> None:
    events = ring(keep=2)
    for _ in range(4):
        events.publish("vm.changed", "x")
    with pytest.raises(Problem) as caught:
        events.since(after)
    assert caught.value.code is Code.GONE


def test_an_empty_ring_knows_only_its_base() -> None:
    assert ring().since(100) == []
    for after in (99, 101):
        with pytest.raises(Problem):
            ring().since(after)


def test_a_listener_hears_everything_inside_publish() -> None:
    events, heard = ring(), []
    events.listen(lambda event: heard.append((event.kind, event.detail)))
    events.publish("vm.changed", "x", state="running")
    assert heard == [("vm.changed", {"state": "running"})]


def test_followers_get_every_event_once_and_the_slow_one_is_told() -> None:
    async def story() -> None:
        events = ring()
        quick, slow = events.follow(100), events.follow(100)
        waiting = asyncio.ensure_future(_next(quick))
        await asyncio.sleep(0)
        events.publish("a", "x")
        assert [event.rev for event in await waiting] == [101]
        for _ in range(3):
            events.publish("a", "x")
        assert [event.rev for event in await anext(quick)] == [102, 103, 104]
        assert [event.rev for event in await anext(slow)] == [101, 102, 103, 104]
        for _ in range(9):
            events.publish("a", "x")
        with pytest.raises(Problem) as caught:
            await anext(slow)
        assert caught.value.code is Code.GONE

    asyncio.run(story())


async def _next(stream):  # type: ignore[no-untyped-def]
    return await anext(stream)
