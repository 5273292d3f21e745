"""The loop: begin, cut, power on, verify, report. Stops at the first failure."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from thimble.core.problem import Problem
from thimble.lab.outer import OuterCrash, with_retries
from thimble.rehearsal.ledger import Ledger
from thimble.rehearsal.scenario import Broken, Scenario, moment
from thimble.rehearsal.site import Site

#: Of all cuts, those that fall into the writing itself, and how many seconds after it began at most.
WRITING_SHARE = 0.4
WRITING_S = 1.5


def rehearse(
    scenario: Scenario, *, count: int, seed: int, say: Callable[[str], None], keep: bool = False
) -> dict[str, Any]:
    """Cut `count` times; the summary. `keep` leaves a failed server on."""
    began = time.monotonic()
    site = with_retries(lambda _: scenario.prepare(), say=say)
    ledger = Ledger()
    outcomes: dict[str, int] = {}
    totals = [0, 0]
    survived = broken = 0
    say(f"{scenario.name}: writes for {scenario.busy_s:.0f} s, over after {scenario.whole_s:.0f} s")
    try:
        for number in range(count):
            try:
                words, fate = _round(scenario, site, ledger, random.Random(f"{seed}/{number}"))
            except OuterCrash as crash:  # not counted; to the host it was a cut as well
                say(f"{number + 1:4} of {count}  not counted: {crash.detail}: {crash.evidence}")
                _again(scenario, site, ledger)
                continue
            outcomes[fate[0]] = outcomes.get(fate[0], 0) + 1
            totals = [totals[0] + fate[1], totals[1] + fate[2]]
            survived += 1
            say(f"{number + 1:4} of {count}  {words}")
    except (Broken, Problem) as error:
        broken = 1
        detail = _words(error)
        say(f"{survived + 1:4} of {count}  BROKEN (seed {seed}): {detail}")
    if not (broken and keep):
        site.server.down(force=True)
    return {
        "scenario": scenario.name,
        "seed": seed,
        "cuts": survived + broken,
        "survived": survived,
        "outcomes": outcomes,
        "acknowledged_changes": ledger.count,
        "uncertain_writes": totals[0],
        "lost_writes": totals[1],
        "total_s": round(time.monotonic() - began, 1),
    }


def _words(error: Exception) -> str:
    if not isinstance(error, Problem):
        return str(error)
    return ": ".join([error.detail, *(reason.message for reason in error.reasons)])


def _again(scenario: Scenario, site: Site, ledger: Ledger) -> None:
    """After the outer QEMU broke: the host has to come back from that, too."""

    def run(_: int) -> None:
        site.server.cut_power()
        site.server.power_on()
        site.ready()
        scenario.verify(ledger)

    ledger.stop()
    with_retries(run)


def _await_writing(scenario: Scenario, begun: float) -> None:
    """Until the host says that it writes; at most as long as writing lasts."""
    while not scenario.writing() and time.monotonic() - begun < scenario.busy_s:
        time.sleep(0.02)


def _round(
    scenario: Scenario, site: Site, ledger: Ledger, dice: random.Random
) -> tuple[str, tuple[str, int, int]]:
    """One cut. Raises `Broken`, and `OuterCrash` when the server's own QEMU broke."""
    ledger.start(site.client)
    what = scenario.begin(dice)
    begun = time.monotonic()
    if dice.random() < WRITING_SHARE:
        _await_writing(scenario, begun)
        time.sleep(dice.uniform(0.0, WRITING_S))
    else:
        wait = moment(dice, busy_s=scenario.busy_s, whole_s=scenario.whole_s)
        while (left := begun + wait - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            scenario.writing()
    wait = time.monotonic() - begun
    uncertain, lost = site.server.cut_power(dice)
    ledger.stop()
    site.server.power_on()
    site.ready()
    outcome = scenario.verify(ledger)
    words = f"{what}, cut after {wait:5.1f} s, {lost} of {uncertain} uncertain writes lost: {outcome}"
    return words, (outcome, uncertain, lost)
