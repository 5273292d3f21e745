"""A service or stand-in that does not fit the contract is found, and named."""

from __future__ import annotations

import pytest

from contract_fit import check_stand_ins, misfits
from thimble.contract import network
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Nothing


class Switches:
    async def list(self, call: Call[None]) -> network.SwitchList: ...
    async def get(self, call: Call[None]) -> network.Switch: ...
    async def create(self, call: Call[network.SwitchCreate]) -> network.Switch | DryRun: ...
    async def change(self, call: Call[network.SwitchChange]) -> network.Switch | DryRun: ...
    async def delete(self, call: Call[None]) -> Nothing | DryRun: ...


def test_what_fits_fits() -> None:
    assert misfits("switch", Switches()) == []
    check_stand_ins({"switch": Switches()})


class Lacking(Switches):
    get = None  # type: ignore[assignment]


class OfAnotherInput(Switches):
    async def change(self, call: Call[network.SwitchCreate]) -> network.Switch | DryRun: ...  # type: ignore[override]


class OfAnotherAnswer(Switches):
    async def get(self, call: Call[None]) -> network.SwitchList: ...  # type: ignore[override]


class WithoutDryRun(Switches):
    async def delete(self, call: Call[None]) -> Nothing: ...


class TakingMore(Switches):
    async def get(self, call: Call[None], again: bool) -> network.Switch: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (Lacking, "switch.get: there is no such method"),
        (OfAnotherInput, "switch.change: it takes"),
        (OfAnotherAnswer, "switch.get: it answers SwitchList, not Switch"),
        (WithoutDryRun, "switch.delete: it answers Nothing, not DryRun | Nothing"),
        (TakingMore, "switch.get: it takes 2 parameters"),
    ],
)
def test_each_fault_is_named(service: type, words: str) -> None:
    (line,) = misfits("switch", service())
    assert line.startswith(words)


class WithAnExtra(Switches):
    async def rename(self, call: Call[None]) -> Nothing: ...


def test_a_stand_in_may_answer_less_but_has_every_verb_and_no_other() -> None:
    check_stand_ins({"switch": WithoutDryRun()})
    with pytest.raises(AssertionError, match=r"switch\.get: there is no such method"):
        check_stand_ins({"switch": Lacking()})
    with pytest.raises(AssertionError, match=r"switch\.rename: the contract has no such verb"):
        check_stand_ins({"switch": WithAnExtra()})


@pytest.mark.parametrize("noun", ["event", "host", "vm"])
def test_streams_archives_and_consoles_are_compared_too(noun: str) -> None:
    lines = misfits(noun, object())
    assert lines and all(line.endswith("there is no such method") for line in lines)
