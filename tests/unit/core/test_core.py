"""Problems, units, ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.core import ids, units
from thimble.core.problem import TABLE, Code, Problem, Reason, refuse


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_status_an_exit_code_and_a_title(code: Code) -> None:
    status, exit_code, title = TABLE[code]
    assert 400 <= status <= 599 and 1 <= exit_code <= 127 and title


def test_a_problem_survives_the_wire() -> None:
    reason = Reason(message="too small", path="$.size_bytes")
    problem = Problem(Code.NO_SPACE, "no room", hint="Free some.", reasons=(reason,), where="/api/v1/vms")
    again = problem.document().problem()
    assert (again.code, again.detail, again.hint) == (problem.code, problem.detail, problem.hint)
    assert (again.reasons, again.where, again.status) == ((reason,), "/api/v1/vms", 507)


def test_refuse_names_every_reason_under_the_first_ones_code() -> None:
    refuse([], "fine")
    reasons = [Reason(message="a", code=Code.EXISTS), Reason(message="b")]
    with pytest.raises(Problem) as caught:
        refuse(reasons, "cannot")
    assert caught.value.code is Code.EXISTS and caught.value.reasons == tuple(reasons)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0), ("512", 512), ("512B", 512), ("10G", 10 * 2**30), ("10 GiB", 10 * 2**30), ("10GB", 10**10),
        ("1.5t", 3 * 2**39), ("2k", 2048), ("2kB", 2000), (" 7 MiB ", 7 * 2**20),
    ],
)  # fmt: skip
def test_sizes_are_read(text: str, count: int) -> None:
    assert units.parse_size(text) == count


@pytest.mark.parametrize(
    "text",
    ["", "G", "-1G", "10 parsecs", "1e3", "1.2.3", "nan", "inf", "0x10", "1_000", "+5", "٣", ".", "9" * 5000],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        units.parse_size(text)
    assert caught.value.code is Code.INVALID and caught.value.hint


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_problem(text: str) -> None:
    try:
        assert units.parse_size(text) >= 0
    except Problem as problem:
        assert problem.code is Code.INVALID


@given(st.integers(min_value=0, max_value=2**60))
def test_a_shown_size_is_close_to_the_true_one(count: int) -> None:
    shown = units.parse_size(units.show_size(count))
    assert abs(shown - count) <= max(1, count * 0.06)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.85, "850 ms"),
        (4.2, "4.2 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (3600, "1 h"),
        (187_200, "2 d 4 h"),
    ],
)
def test_times_are_shown(seconds: float, words: str) -> None:
    assert units.show_seconds(seconds) == words


@given(st.binary(min_size=5, max_size=5), st.binary(min_size=5, max_size=5))
def test_ids_are_as_different_as_their_entropy(one: bytes, other: bytes) -> None:
    first, second = ids.identity("vm", one), ids.identity("vm", other)
    assert (first == second) is (one == other)
    assert not ids.name_reasons(first, "$") and len(first) == len("vm-") + 8


@pytest.mark.parametrize("name", ["a", "web1", "0", "a-b.c_d", "x" * 63])
def test_good_names(name: str) -> None:
    assert not ids.name_reasons(name, "$.name")


@pytest.mark.parametrize(
    "name", ["", "x" * 64, "A", ".hidden", "-a", "_a", "a/b", "a b", "é", "a\n", "..", "ª"]
)
def test_bad_names_are_refused_with_their_path(name: str) -> None:
    assert [reason.path for reason in ids.name_reasons(name, "$.name")] == ["$.name"]


@given(st.binary(min_size=3, max_size=8))
def test_a_mac_is_local_unicast_and_ours(entropy: bytes) -> None:
    mac = ids.mac_address(entropy)
    assert mac.startswith("52:54:00:") and len(mac) == 17
    assert int(mac[:2], 16) & 3 == 2
