"""What goes on while the power is cut, and what has to be true afterwards."""

from __future__ import annotations

import random
from typing import Protocol

from thimble.rehearsal.ledger import Ledger
from thimble.rehearsal.site import Site


class Broken(Exception):
    """A promise was not kept. The words say which."""


class Scenario(Protocol):
    """One kind of work. Seconds are learnt from a round that is not cut."""

    name: str
    busy_s: float  # from the beginning until everything is written
    whole_s: float  # until nothing happens any more

    def prepare(self) -> Site:
        """A server that is ready and signed in to; one whole round has been done and timed."""

    def begin(self, dice: random.Random, /) -> str:
        """Start the work; what it is, in words."""

    def writing(self) -> bool:
        """Whether it is writing now, as far as it tells. Raises `Broken` when it has failed."""

    def verify(self, ledger: Ledger, /) -> str:
        """After a cut and power-on: how it went, in words. Raises `Broken`."""


def moment(dice: random.Random, *, busy_s: float, whole_s: float) -> float:
    """Seconds from the beginning to the cut: half of the cuts fall into the writing, half anywhere."""
    return dice.uniform(0.0, busy_s if dice.random() < 0.5 else whole_s)


def keeps_word(ledger: Ledger, name: str) -> None:
    """Raises `Broken` when an acknowledged change is gone, or one appeared that was never asked for."""
    if not ledger.holds(name):
        raise Broken(f"the host is called {name}, and acknowledged was {ledger.expected()}")
    ledger.seen(name)
