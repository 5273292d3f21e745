"""The switch over the management network's card, as PID 1 tells of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thimble.core.problem import Code, Problem
from thimble.network.service import Network
from thimble.state.events import Events


def remembered(place: Path) -> tuple[int, str]:
    found = json.loads((place / "state/switches/uplink.json").read_text())
    return found["rev"], found["record"].get("uplink", "")


def start(place: Path, nic: str) -> Network:
    """An agent's networks, started when PID 1 knew this card."""
    (place / "run").mkdir(exist_ok=True)
    (place / "run/boot.json").write_text(json.dumps({"uplink": {"bridge": "uplink", "nic": nic}}))
    network = Network(place / "state", place / "run", events=Events(base=1, clock=lambda: 0.0))
    network._records.add_shelf("", place / "state/switches")
    network._adopt_uplink()
    return network


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
    start(tmp_path, "eth0")
    network = start(tmp_path, "eth0")

    def full(*_: object, **__: object) -> None:
        raise Problem(Code.NO_SPACE, "no space left")

    monkeypatch.setattr(network._records, "put", full)
    (tmp_path / "run/boot.json").write_text(json.dumps({"uplink": {"bridge": "uplink", "nic": "eth9"}}))
    network._adopt_uplink()
    assert remembered(tmp_path) == (1, "eth0")
