"""Is this boot as good as the one before: what is waited for, what is not, and what is said then."""

from __future__ import annotations

import asyncio

import pytest

from thimble.deploy import health
from thimble.deploy.boot_files import Expect
from thimble.deploy.health import HealthCheck, Present
from thimble.host import hardware

BEFORE = Expect(state="partition", datastores=("data", "local"), address=True, gateway=True)


class World:
    """A host that gets better while it is looked at: at every pause `better` says in what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.datastores = "partition", ("data", "local")
        self.addresses = ["10.0.0.7"]
        self.api = ""
        self.gateway: bool | None = True
        self.better: list[dict[str, object]] = []
        self.asked: list[tuple[str, int, str]] = []
        monkeypatch.setattr(hardware, "addresses", lambda: self.addresses)
        monkeypatch.setattr(health, "api_answers", self.api_answers)
        monkeypatch.setattr(health, "gateway_answers", self.gateway_answers)

    def present(self) -> Present:
        return Present(state=self.state, datastores=self.datastores, fingerprint="ab", port=443)

    async def api_answers(self, address: str, port: int, fingerprint: str) -> str:
        self.asked.append((address, port, fingerprint))
        return self.api

    async def gateway_answers(self) -> bool | None:
        return self.gateway

    async def sleep(self, seconds: float) -> None:
        for name, value in self.better.pop(0).items():
            setattr(self, name, value)

    def prove(self, expect: Expect, *, within: float = 1000.0) -> str:
        found = HealthCheck(self.present, within=within, sleep=self.sleep)
        return asyncio.run(found.prove(expect))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_what_works_now_is_expected_of_the_next(world: World) -> None:
    found = HealthCheck(world.present)
    assert asyncio.run(found.expectations()) == BEFORE
    world.gateway, world.addresses = None, []
    assert asyncio.run(found.expectations()) == Expect(state="partition", datastores=("data", "local"))


def test_a_boot_as_good_as_before_is_proven_at_once(world: World) -> None:
    assert world.prove(BEFORE) == ""
    assert world.asked == [("10.0.0.7", 443, "ab")], "at the address clients use"


def test_what_comes_late_is_waited_for(world: World) -> None:
    world.datastores, world.addresses, world.api, world.gateway = (), [], "the API is not there yet", None
    world.better = [
        {"datastores": ("data", "local")},
        {"addresses": ["10.0.0.7"]},
        {"api": ""},
        {"gateway": True},
    ]
    assert world.prove(BEFORE) == "" and world.better == []


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ({"datastores": ("local",)}, "the datastore data is not mounted, and was before"),
        ({"addresses": []}, "the management network has no address, and had one before"),
        ({"api": "it shows another certificate"}, "it shows another certificate"),
        ({"gateway": False}, "the gateway does not answer, and did before"),
        ({"gateway": None}, "the gateway does not answer, and did before"),
    ],
)
def test_when_time_is_up_the_reason_is_told(world: World, missing: dict[str, object], why: str) -> None:
    for name, value in missing.items():
        setattr(world, name, value)
    assert world.prove(BEFORE, within=0) == why


def test_a_lost_state_is_not_waited_for(world: World) -> None:
    world.state = "ram"
    assert world.prove(BEFORE) == "the state is in ram, and was in a partition before"
    assert world.asked == []


def test_what_did_not_work_before_need_not_work_now(world: World) -> None:
    world.datastores, world.addresses, world.gateway = (), [], None
    assert world.prove(Expect()) == ""
    assert world.asked == [("127.0.0.1", 443, "ab")]
