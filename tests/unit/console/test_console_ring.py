from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thimble.console.ring import Ring, missed


@given(st.lists(st.binary(max_size=40), max_size=400), st.integers(1, 100))
def test_a_ring_holds_exactly_the_last_bytes(parts: list[bytes], size: int) -> None:
    ring = Ring(size)
    for part in parts:
        ring.put(part)
    assert ring.content() == b"".join(parts)[-size:]


def test_a_ring_of_many_single_bytes_stays_small() -> None:
    ring = Ring(1000)
    for number in range(100_000):
        ring.put(bytes((number % 251,)))
    assert len(ring.content()) == 1000
    assert len(ring._parts) < 300


@given(st.integers(0, 80), st.integers(1, 80), st.integers(0, 250))
def test_what_was_missed_and_what_came_join_without_loss_or_repetition(
    start: int, came: int, logged: int
) -> None:
    stream = bytes(range(250))  # no byte twice, so that every overlap is a true one
    end = start + came
    gap = stream[: max(start, logged)]  # the log is at least as far as where the socket began
    assert missed(gap, stream[start:end]) + stream[start:end] == stream[:end]


def test_nothing_logged_means_nothing_missed() -> None:
    assert missed(b"", b"login: ") == b""
