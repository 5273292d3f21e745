"""When a promise counts as kept, and what the table says about it."""

from __future__ import annotations

import json

import pytest
from benchmarks import table
from benchmarks.promise import Bound, Promised, Row, judge, ratios, spread
from hypothesis import given, settings
from hypothesis import strategies as st

TIMES = st.lists(st.floats(min_value=0.001, max_value=1e6), min_size=1, max_size=9)


def row(bound: Bound | None, limit: float, ours: tuple[float, ...], theirs: tuple[float, ...] = ()) -> Row:
    promised = Promised(bound=bound, limit=limit) if bound else None
    return Row(promise="p", what="w", unit="s", ours=ours, peer="them", theirs=theirs, promised=promised)


@pytest.mark.parametrize(
    ("bound", "limit", "ours", "theirs", "kept"),
    [
        (Bound.TIMES_BETTER, 2.5, (10.0,), (25.0,), True),
        (Bound.TIMES_BETTER, 2.5, (10.0,), (24.9,), False),
        (Bound.TIMES_OF_PEER, 1.15, (1.15,), (1.0,), True),
        (Bound.TIMES_OF_PEER, 1.15, (1.16,), (1.0,), False),
        (Bound.AT_MOST, 0.02, (0.02,), (), True),
        (Bound.AT_MOST, 0.02, (0.021,), (), False),
    ],
)
def test_a_limit_itself_is_kept_and_anything_beyond_is_not(
    bound: Bound, limit: float, ours: tuple[float, ...], theirs: tuple[float, ...], kept: bool
) -> None:
    assert judge(row(bound, limit, ours, theirs)).kept is kept


def test_the_median_of_the_pairs_decides_not_the_pair_of_the_medians() -> None:
    drifting = row(Bound.TIMES_BETTER, 2.5, ours=(1.0, 10.0, 2.0), theirs=(3.0, 30.0, 4.0))
    found = judge(drifting).ratio
    assert found is not None
    assert (found.least, found.median, found.greatest) == (2.0, 3.0, 3.0)
    assert judge(drifting).kept


def test_one_lucky_round_does_not_keep_a_promise() -> None:
    assert judge(row(Bound.TIMES_OF_PEER, 1.15, ours=(1.0, 1.3, 1.3), theirs=(1.0, 1.0, 1.0))).kept is False


def test_what_was_not_measured_is_not_called_kept() -> None:
    unmeasured = row(Bound.AT_MOST, 1.0, ours=())
    assert judge(unmeasured).kept is None
    assert table.cells(unmeasured)[-1] == "not measured"


def test_context_has_neither_promise_nor_verdict() -> None:
    assert table.cells(row(None, 0, ours=(1.0,), theirs=(2.0,)))[-2:] == ("", "")


def test_sides_of_different_length_are_held_against_the_peers_median() -> None:
    assert ratios([2.0, 4.0], [1.0, 2.0, 9.0]) == [1.0, 2.0]


@settings(deadline=None)
@given(TIMES)
def test_a_spread_lies_within_its_values(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    assert min(values) == found.least <= found.median <= found.greatest == max(values)


@settings(deadline=None)
@given(TIMES)
def test_measured_against_oneself_everything_is_one(values: list[float]) -> None:
    assert ratios(values, values) == [1.0] * len(values)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"),
        (28.44, "s", "28.4 s"),
        (263.4, "MiB", "263 MiB"),
        (1.234, "", "1.23"),
        (0.5, "s", "0.50 s"),
    ],
)
def test_figures_carry_three_useful_digits(value: float, unit: str, text: str) -> None:
    assert table.figure(value, unit) == text


def test_the_table_is_aligned_and_shouts_what_is_not_kept() -> None:
    kept = row(Bound.TIMES_BETTER, 2.5, ours=(1.0,), theirs=(3.0,))
    broken = row(Bound.TIMES_OF_PEER, 1.15, ours=(2.0,), theirs=(1.0,))
    header, rule, first, second = table.render([kept, broken]).splitlines()
    column = header.index("kept")
    assert first[column:] == "yes"
    assert second[column:] == "NO"
    assert len(rule) >= column
    assert "1.00 / 3.00" not in first
    assert "3.00 / 3.00 / 3.00" in first


def test_the_report_holds_every_sample() -> None:
    text = table.report([row(Bound.AT_MOST, 5.0, ours=(1.0, 2.0, 3.0))], {"processors": 2})
    found = json.loads(text)
    assert found["machine"] == {"processors": 2}
    assert found["rows"][0]["ours"] == [1.0, 2.0, 3.0]
    assert found["rows"][0]["verdict"]["kept"] is True
    assert found["rows"][0]["promised"] == {"bound": "at most", "limit": 5.0}
