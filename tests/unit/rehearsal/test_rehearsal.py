"""The ledger of acknowledged changes, the moments of cuts, and the loop around a scenario."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from thimble.core.problem import Code, Problem
from thimble.document.read import read
from thimble.lab.outer import OuterCrash
from thimble.rehearsal import run
from thimble.rehearsal.apply import document
from thimble.rehearsal.ledger import Ledger
from thimble.rehearsal.run import rehearse
from thimble.rehearsal.scenario import Broken, keeps_word, moment
from thimble.rehearsal.site import Site


class Host:
    """Takes names until the power goes."""

    def __init__(self, until: int) -> None:
        self.names: list[str] = []
        self._until = until

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def call(self, _verb: str, change: Any) -> None:
        if len(self.names) == self._until:
            raise Problem(Code.UNAVAILABLE, "the power went")
        self.names.append(change.name)


def written(host: Host) -> Ledger:
    ledger = Ledger()
    ledger.start(cast(Any, lambda: host), pause=0.0)
    assert ledger._thread is not None
    ledger._thread.join(10)
    return ledger


def test_the_last_acknowledged_name_and_the_one_under_way_are_both_right() -> None:
    ledger = written(Host(3))
    assert ledger.holds("rehearsal-3") and ledger.holds("rehearsal-4")
    assert not ledger.holds("rehearsal-2") and not ledger.holds("thimble")
    with pytest.raises(Broken, match="acknowledged was rehearsal-3 or rehearsal-4"):
        keeps_word(ledger, "rehearsal-2")


def test_once_seen_only_that_name_is_right() -> None:
    ledger = written(Host(3))
    keeps_word(ledger, "rehearsal-4")
    assert not ledger.holds("rehearsal-3")


def test_cuts_fall_into_the_writing_more_often() -> None:
    moments = [moment(random.Random(seed), busy_s=10.0, whole_s=100.0) for seed in range(400)]
    assert 0.4 < sum(at < 10.0 for at in moments) / 400 < 0.75
    assert max(moments) <= 100.0


class Server:
    def __init__(self, crashes: int = 0) -> None:
        self.cuts = self.downs = 0
        self._crashes = crashes

    def cut_power(self, dice: random.Random | None = None) -> tuple[int, int]:
        self.cuts += dice is not None
        return 2, 1

    def power_on(self) -> None:
        if self._crashes:
            self._crashes -= 1
            raise OuterCrash("it broke")

    def down(self, *, force: bool) -> None:
        self.downs += force


class Scene:
    name, busy_s, whole_s = "scene", 0.0, 0.0

    def __init__(self, server: Server, breaks_at: int = -1) -> None:
        site = SimpleNamespace(server=server, ready=lambda: None, client=lambda: Host(0))
        self._site, self._breaks_at, self._round = cast(Site, site), breaks_at, 0

    def prepare(self) -> Site:
        return self._site

    def begin(self, _: random.Random, /) -> str:
        self._round += 1
        return "work"

    def writing(self) -> bool:
        return True

    def verify(self, _: Ledger, /) -> str:
        if self._round == self._breaks_at:
            raise Broken("it is gone")
        return "whole"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "WRITING_S", 0.0)


def test_a_round_in_which_the_outer_qemu_broke_is_not_counted() -> None:
    server, said = Server(crashes=1), list[str]()
    told = rehearse(Scene(server), count=3, seed=1, say=said.append)
    assert (told["cuts"], told["survived"]) == (2, 2)
    assert "not counted" in said[1] and "it broke" in said[1]


def test_every_cut_is_counted_and_told() -> None:
    server, said = Server(), list[str]()
    told = rehearse(Scene(server), count=3, seed=1, say=said.append)
    assert (told["cuts"], told["survived"], told["outcomes"]) == (3, 3, {"whole": 3})
    assert (told["uncertain_writes"], told["lost_writes"]) == (6, 3)
    assert server.cuts == 3 and server.downs == 1 and len(said) == 4


def test_it_ends_at_the_first_promise_that_is_not_kept() -> None:
    server, said = Server(), list[str]()
    told = rehearse(Scene(server, breaks_at=2), count=9, seed=1, say=said.append, keep=True)
    assert (told["cuts"], told["survived"]) == (2, 1)
    assert "BROKEN" in said[-1] and "it is gone" in said[-1]
    assert server.downs == 0


@pytest.mark.parametrize("number", [0, 1, 40])
def test_the_documents_it_applies_are_documents(number: int) -> None:
    assert len(read(document(number)).document.vm) == 3
