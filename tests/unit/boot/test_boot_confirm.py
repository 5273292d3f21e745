"""Settings of the management network on trial: in force, and undone by themselves, agent or not."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from thimble.boot.net import confirm, ipparam, management
from thimble.boot.net.confirm import CommitConfirm

NEW = {"address": "10.0.0.6/24", "address6": "off", "vlan": 0, "dns": []}
CARD = "52:54:00:00:00:01"


class Stage:
    """A trial whose timers are fired by hand."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.timers: dict[float, Any] = {}
        self.followed = self.told = 0
        loop: Any = SimpleNamespace(after=self.after)
        self.it = CommitConfirm(loop, self.said.append, self.follow, self.tell)

    def after(self, seconds: float, call: Any) -> Any:
        self.timers[seconds] = call
        return SimpleNamespace(cancel=lambda: self.timers.pop(seconds, None))

    def follow(self) -> None:
        self.followed += 1

    def tell(self) -> None:
        self.told += 1


@pytest.fixture
def stage() -> Stage:
    made = Stage()
    made.it.begin("a1", NEW, 60, CARD)
    return made


def record(**values: Any) -> str:
    return json.dumps({"format": 1, "rev": 2, "record": values})


def test_it_is_told_first_and_followed_when_the_answer_is_out(stage: Stage) -> None:
    assert (stage.told, stage.followed) == (1, 0)
    stage.timers[confirm.MOMENT]()
    assert stage.followed == 1
    facts = stage.it.facts()
    assert facts is not None and (facts["id"], facts["settings"], facts["in_force"]) == ("a1", NEW, 0.0)
    (warning,) = stage.it.warnings()
    assert "unless they are confirmed" in warning


def test_without_a_word_it_is_undone_when_its_time_is_up(stage: Stage) -> None:
    stage.timers[confirm.MOMENT]()
    stage.timers[60 + confirm.MOMENT]()
    assert (stage.it.settings, stage.it.facts(), stage.it.warnings()) == (None, None, [])
    assert stage.followed == 2 and stage.it.nic == CARD and stage.timers == {}


def test_a_record_that_says_the_same_keeps_it_and_changes_nothing_on_the_wire(stage: Stage) -> None:
    stage.timers[confirm.MOMENT]()
    assert stage.it.end(record(**NEW)) is True
    assert stage.it.settings is None and stage.timers == {}
    assert stage.said[-1].endswith("confirmed")


@pytest.mark.parametrize("text", ["", "{", record(address="dhcp"), record(**NEW | {"vlan": 4})])
def test_any_other_record_takes_it_back(stage: Stage, text: str) -> None:
    stage.timers[confirm.MOMENT]()
    assert stage.it.end(text) is False
    assert stage.it.settings is None and stage.timers == {}


def test_what_was_not_followed_yet_is_not_in_force_though_the_record_says_the_same(stage: Stage) -> None:
    assert stage.it.end(record(**NEW)) is False


def test_in_force_is_since_when_all_was_settled_without_a_break(stage: Stage) -> None:
    stage.it.look(settled=True)
    assert stage.it.in_force == 0  # it is the old settings that are settled
    stage.timers[confirm.MOMENT]()
    stage.it.look(settled=True)
    since = stage.it.in_force
    assert since > 0
    stage.it.look(settled=True)
    assert stage.it.in_force == since
    stage.it.look(settled=False)
    assert stage.it.in_force == 0


def test_settings_on_trial_win_over_record_and_document_but_not_over_the_command_line() -> None:
    nothing, line = ipparam.plan([]), ipparam.plan(["dhcp"])
    found = management.plan(nothing, record(vlan=3), {"vlan": 5}, NEW)
    assert (found.source, found.static[0].address) == ("the unconfirmed settings", "10.0.0.6")
    assert management.plan(line, "", None, NEW) is line
