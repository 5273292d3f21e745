"""The loop: begin, cut, power on, verify; and what it tells. Stops at the first promise that was not kept."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from thimble.core.problem import Problem
from thimble.lab.outer import OuterCrash
from thimble.rehearsal.ledger import Ledger
from thimble.rehearsal.scenario import Broken, Scenario, moment
from thimble.rehearsal.site import Site

#: Of all cuts, those that fall into the writing itself, and how many seconds after it began at most.
WRITING_SHARE = 0.4
WRITING_S = 1.5


def rehearse(
    scenario: Scenario, *, count: int, seed: int, say: Callable[[str], None], keep: bool = False
) -> dict[str, Any]:
    """Cut `count` times; the summary. `keep` leaves a server on that has broken a promise."""
    began = time.monotonic()
    site = scenario.prepare()
    ledger = Ledger()
    outcomes: dict[str, int] = {}
    totals = [0, 0]
    survived = broken = 0
    say(f"{scenario.name}: writes for {scenario.busy_s:.0f} s, over after {scenario.whole_s:.0f} s")
    try:
        for number in range(count):
            words, fate = _round(scenario, site, ledger, random.Random(f"{seed}/{number}"))
            outcomes[fate[0]] = outcomes.get(fate[0], 0) + 1
            totals = [totals[0] + fate[1], totals[1] + fate[2]]
            survived += 1
            say(f"{number + 1:4} of {count}  {words}")
    except (Broken, Problem) as error:
        broken = 1
        detail = error.detail if isinstance(error, Problem) else str(error)
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


def _await_writing(scenario: Scenario, begun: float) -> None:
    """Until the host says that it writes; at most as long as writing lasts."""
    while not scenario.writing() and time.monotonic() - begun < scenario.busy_s:
        time.sleep(0.02)


def _round(
    scenario: Scenario, site: Site, ledger: Ledger, dice: random.Random
) -> tuple[str, tuple[str, int, int]]:
    """One cut. A server whose own QEMU broke is started again: that is a cut as well."""
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
    for _ in range(3):
        try:
            site.server.power_on()
            site.ready()
            break
        except OuterCrash:
            site.server.cut_power()
    outcome = scenario.verify(ledger)
    words = f"{what}, cut after {wait:5.1f} s, {lost} of {uncertain} uncertain writes lost: {outcome}"
    return words, (outcome, uncertain, lost)
