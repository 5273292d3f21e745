"""The management network's settings: checked, kept, and PID 1 told; hosted, somebody else's."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.management import ManagementChange, ManagementSettings
from thimble.core.problem import Code, Problem
from thimble.host.management import ManagementService
from thimble.host.pid1 import Init
from thimble.host.rules import management_reasons
from thimble.state.events import Events


@pytest.fixture
def first(tmp_path: Path) -> Iterator[socket.socket]:
    """Where PID 1 listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "init.sock"))
        line.setblocking(False)
        yield line


def service(tmp_path: Path) -> ManagementService:
    events = Events(base=0, clock=lambda: 0.0)
    return ManagementService(tmp_path / "state", Init(tmp_path), events, durable=False)


def change(service: ManagementService, *, dry_run: bool = False, **fields: Any) -> Any:
    return asyncio.run(service.change(Call(input=ManagementChange(**fields), dry_run=dry_run)))


def test_what_is_asked_is_kept_and_pid_1_told(tmp_path: Path, first: socket.socket) -> None:
    made = change(service(tmp_path), address="10.0.0.5/24", gateway="10.0.0.1", nic="3C:EC:EF:00:00:01")
    assert (made.rev, made.managed, made.settings.nic) == (1, True, "3c:ec:ef:00:00:01")
    assert json.loads(first.recv(65536)) == {"verb": "network"}
    kept = json.loads((tmp_path / "state/management/management.json").read_text())
    assert kept["format"] == 1 and kept["record"]["address"] == "10.0.0.5/24"
    again = change(service(tmp_path), vlan=7)
    assert (again.settings.vlan, again.settings.address) == (7, "10.0.0.5/24")


def test_what_is_so_already_is_not_written_again(tmp_path: Path, first: socket.socket) -> None:
    one = service(tmp_path)
    change(one, vlan=7)
    first.recv(65536)
    assert change(one, vlan=7).rev == 1
    with pytest.raises(BlockingIOError):
        first.recv(65536)


def test_a_dry_run_names_what_changes_and_changes_nothing(tmp_path: Path, first: socket.socket) -> None:
    told = change(service(tmp_path), dry_run=True, ntp=("t1", "t2"))
    assert isinstance(told, DryRun) and told.possible
    assert [effect.what for effect in told.effects] == ["sets ntp of the management network to t1, t2"]
    assert not (tmp_path / "state/management").exists()


def test_hosted_it_is_refused_with_a_word_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        change(service(tmp_path), vlan=7)
    assert caught.value.code is Code.UNSUPPORTED and "that system" in caught.value.hint
    found = service(tmp_path).view()
    assert (found.managed, found.rev, found.settings) == (False, 0, ManagementSettings())


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"nic": "eth0"}, "$.nic"),
        ({"nic": "01:00:00:00:00:00"}, "$.nic"),
        ({"address": "10.0.0.5"}, "$.address"),
        ({"address": "2001:db8::5/64"}, "$.address"),
        ({"address": "10.0.0.0/24"}, "$.address"),
        ({"address": "127.0.0.1/8"}, "$.address"),
        ({"address": "somewhere"}, "$.address"),
        ({"gateway": "10.0.0.1"}, "$.gateway"),
        ({"address": "10.0.0.5/24", "gateway": "10.0.1.1"}, "$.gateway"),
        ({"address": "10.0.0.5/24", "gateway": "10.0.0.5"}, "$.gateway"),
        ({"address": "10.0.0.5/24", "gateway": "2001:db8::1"}, "$.gateway"),
        ({"address6": "10.0.0.5/24"}, "$.address6"),
        ({"address6": "2001:db8::5/64", "gateway6": "2001:db9::1"}, "$.gateway6"),
        ({"dns": ("8.8.8.8", "host")}, "$.dns[1]"),
        ({"address": "off", "address6": "off"}, "$.address6"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields: dict[str, Any], path: str) -> None:
    assert [reason.path for reason in management_reasons(ManagementSettings(**fields))] == [path]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"address": "10.0.0.5/31", "gateway": "10.0.0.4"},
        {"address": "off"},
        {"address6": "2001:db8::5/64", "gateway6": "fe80::1"},
        {"address": "10.0.0.5/24", "gateway": "10.0.0.1", "dns": ("10.0.0.1", "2001:db8::53"), "vlan": 4094},
    ],
)
def test_settings_that_can_be_are_accepted(fields: dict[str, Any]) -> None:
    assert management_reasons(ManagementSettings(**fields)) == []
