"""The table of states and verbs, walked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from thimble.contract.vm import PowerState
from thimble.core.problem import Code
from thimble.vm.record import lifecycle
from thimble.vm.record.lifecycle import LIVE, NEXT, VERBS, Ending, Verb
from thimble.vm.record.spec import Phase

S = PowerState


def test_every_state_has_followers_and_answers_to_every_verb() -> None:
    assert set(NEXT) == set(VERBS) == set(PowerState)
    assert all(len(answers) == len(Verb) for answers in VERBS.values())


def test_every_state_is_reached_from_creating() -> None:
    seen, edge = {S.CREATING}, {S.CREATING}
    while edge:
        edge = {after for state in edge for after in NEXT[state]} - seen
        seen |= edge
    assert seen == set(PowerState)


@pytest.mark.parametrize("state", PowerState)
def test_allowed_is_what_decide_accepts(state: PowerState) -> None:
    accepted = {verb for verb in Verb if lifecycle.decide(state, Phase.READY, verb).plan}
    assert accepted == set(lifecycle.allowed(state, Phase.READY))


@pytest.mark.parametrize("state", sorted(LIVE))
def test_what_runs_cannot_be_deleted_and_can_always_be_killed(state: PowerState) -> None:
    verdict = lifecycle.decide(state, Phase.READY, Verb.DELETE)
    assert verdict.plan is None
    assert verdict.blockers[0].code is Code.CONFLICT
    assert "stop it first" in verdict.blockers[0].message
    assert "kill" in lifecycle.allowed(state, Phase.READY)


def test_starting_what_runs_and_stopping_what_is_off_is_nothing() -> None:
    assert lifecycle.decide(S.RUNNING, Phase.READY, Verb.START).note == "it is running"
    assert lifecycle.decide(S.STOPPED, Phase.READY, Verb.STOP).note == "it is stopped"


def test_a_failed_delete_can_only_be_deleted_again() -> None:
    assert lifecycle.allowed(S.FAILED, Phase.DELETING) == ("delete",)
    assert lifecycle.decide(S.FAILED, Phase.DELETING, Verb.START).blockers
    assert lifecycle.decide(S.FAILED, Phase.DELETING, Verb.DELETE).plan


@given(some.sampled_from(sorted(PowerState)), some.lists(some.integers(0, 99), max_size=20))
def test_no_walk_through_the_table_leaves_a_live_state_without_a_way_off(
    start: PowerState, steps: list[int]
) -> None:
    state = start
    for step in steps:
        followers = sorted(NEXT[state])
        state = followers[step % len(followers)]
    if state in LIVE:
        assert NEXT[state] & {S.STOPPED, S.CRASHED}


def test_restarts_come_ever_later() -> None:
    assert [lifecycle.backoff(n) for n in (1, 2, 3, 6, 7, 50)] == [1, 2, 4, 32, 60, 60]


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("", Ending.DEATH),
        ("qemu_system_shutdown_request reason=6\n", Ending.GUEST),
        ("12@3.4:qemu_system_shutdown_request reason=8\n", Ending.PANIC),
        (
            "qemu_system_shutdown_request reason=4\nqemu-system-x86_64: terminating on signal 15\n",
            Ending.SIGNAL,
        ),
        ("qemu_system_shutdown_request reason=", Ending.DEATH),
        ("qemu_system_shutdown_request reason=99\n", Ending.DEATH),
    ],
)
def test_the_log_tells_why_qemu_ended(log: str, why: Ending) -> None:
    assert lifecycle.ending(log) is why


@pytest.mark.parametrize("earlier", [Verb.START, Verb.SAVE, Verb.DELETE])
def test_what_was_accepted_and_has_not_begun_is_in_view(earlier: Verb) -> None:
    """A start and a delete in one breath: the second is refused, not both accepted."""
    state = S.RUNNING if earlier is Verb.SAVE else S.STOPPED
    later = Verb.START if earlier is Verb.DELETE else Verb.DELETE
    assert lifecycle.decide(state, Phase.READY, earlier).plan
    assert lifecycle.decide(state, Phase.READY, later, [earlier]).blockers


def test_what_is_being_deleted_takes_nothing_else() -> None:
    for verb in set(Verb) - {Verb.DELETE}:
        assert lifecycle.decide(S.STOPPED, Phase.DELETING, verb).blockers
