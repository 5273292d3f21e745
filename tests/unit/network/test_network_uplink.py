"""The switch over the management network's card, as PID 1 tells of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from thimble.contract.network import SwitchKind
from thimble.core.problem import Code, Problem
from thimble.network.records import SwitchRecord
from thimble.network.service import Network
from thimble.network.switches import Switches
from thimble.state.events import Events
from thimble.sys import hostnet


def remembered(place: Path) -> tuple[int, str]:
    found = json.loads((place / "state/switches/uplink.json").read_text())
    return found["rev"], found["record"].get("uplink", "")


def start(place: Path, nic: str) -> Switches:
    """An agent's switches, when it started with PID 1 knowing this card."""
    (place / "run").mkdir(exist_ok=True)
    (place / "run/boot.json").write_text(json.dumps({"uplink": {"bridge": "uplink", "nic": nic}}))
    switches = Switches(place / "state", place / "run")
    asyncio.run(switches.open())
    return switches


def test_a_card_not_known_yet_is_no_news(tmp_path: Path) -> None:
    start(tmp_path, "eth0")
    before = remembered(tmp_path)
    start(tmp_path, "")
    assert remembered(tmp_path) == before == (1, "eth0")
    start(tmp_path, "eth1")
    assert remembered(tmp_path) == (2, "eth1")


def test_a_full_disk_keeps_no_host_from_being_reachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switches = start(tmp_path, "eth0")

    async def full(*_: object, **__: object) -> None:
        raise Problem(Code.NO_SPACE, "no space left")

    (tmp_path / "run/boot.json").write_text(json.dumps({"uplink": {"bridge": "uplink", "nic": "eth9"}}))
    with monkeypatch.context() as patched:
        patched.setattr(switches.records, "commit", full)
        asyncio.run(switches.adopt_uplink())
    assert remembered(tmp_path) == (1, "eth0")
    asyncio.run(switches.adopt_uplink())
    assert remembered(tmp_path) == (2, "eth9"), "it is tried again"


def test_a_switch_is_bound_to_the_card_and_not_to_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switches = start(tmp_path, "eth0")
    mac = "3c:ec:ef:00:00:02"
    record = SwitchRecord(kind=SwitchKind.BRIDGED, bridge="tb-1", uplink=mac)
    switches.records.put("lan", record)
    cards = {mac: "eth1", "3c:ec:ef:00:00:01": "eth0"}
    monkeypatch.setattr(hostnet, "macs", lambda: cards)
    assert switches.all()["lan"].uplink == "eth1"
    cards = {mac: "eth0", "3c:ec:ef:00:00:01": "eth1"}  # another card was put in
    assert switches.all()["lan"].uplink == "eth0"
    cards = {}
    assert switches.all()["lan"].uplink == mac
    assert json.loads((tmp_path / "state/switches/lan.json").read_text())["record"]["uplink"] == mac


def test_what_a_card_is_for_is_said_by_the_switches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {"3c:ec:ef:00:00:01": "eth0", "3c:ec:ef:00:00:02": "eth1", "3c:ec:ef:00:00:03": "eth2"}
    monkeypatch.setattr(hostnet, "macs", lambda: cards)
    start(tmp_path, "eth0").records.put(
        "lan", SwitchRecord(kind=SwitchKind.BRIDGED, bridge="tb-1", uplink="3c:ec:ef:00:00:02")
    )

    async def work() -> dict[str, str]:
        network = Network(tmp_path / "state", tmp_path / "run", events=Events(base=1, clock=lambda: 0.0))
        await network.open()
        return network.card_uses()

    uses = asyncio.run(work())
    assert uses == {"3c:ec:ef:00:00:01": "management", "3c:ec:ef:00:00:02": "switch lan"}


def test_a_card_is_remembered_by_its_mac_and_a_bridge_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    mac, name = next(iter(hostnet.macs().items()), ("", ""))
    assert hostnet.lasting_name("lo") == "lo"
    if name and Path(f"/sys/class/net/{name}/device").exists():
        assert hostnet.lasting_name(name) == mac
