"""`thimble host network`: a change is confirmed by reaching the host anew, or the host undoes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from thimble.cli import reconnect
from thimble.client import profile
from thimble.contract.management import Management, ManagementSettings, PendingNet
from thimble.core.problem import Code, Problem

OLD = ManagementSettings()
NEW = ManagementSettings(address="10.0.0.6/24", gateway="10.0.0.1")


def management(settings: ManagementSettings, *, in_force: bool | None = None) -> Management:
    pending = None
    if in_force is not None:
        pending = PendingNet(until=0, left_s=50, previous=OLD, in_force=in_force)
    return Management(rev=0 if pending else 1, managed=True, settings=settings, pending=pending)


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "PAUSE_S", 0.01)


def only_at(place: str, answer: Any) -> Callable[[httpx.Request], Any]:
    def ask(request: httpx.Request) -> Any:
        if request.url.host != place:
            raise httpx.ConnectTimeout("no way there", request=request)
        return answer() if callable(answer) else answer

    return ask


def test_a_new_address_is_reached_confirmed_and_kept_in_the_profile(host, thimble, location: Path) -> None:
    looks = iter((management(NEW, in_force=False), management(NEW, in_force=True)))
    host.answers |= {
        "management.change": management(NEW, in_force=False),
        "management.get": only_at("10.0.0.6", lambda: next(looks)),
        "management.confirm": only_at("10.0.0.6", management(NEW)),
    }
    line = thimble("host", "network", "set", "--address", "10.0.0.6/24", "--gateway", "10.0.0.1")
    assert line.code == 0, line.err
    assert "reached and confirmed" in line.out
    assert "connecting to https://10.0.0.6 and https://host" in line.err
    assert host.body("management.change") == {
        "address": "10.0.0.6/24",
        "gateway": "10.0.0.1",
        "confirm_within": 60,
    }
    assert profile.read(location).profiles["host"].url == "https://10.0.0.6"


def test_a_host_that_is_not_reached_goes_back_and_when_is_said(host, thimble) -> None:
    host.answers |= {
        "management.change": management(NEW, in_force=False),
        "management.get": only_at("nowhere", None),
    }
    words = ("host", "network", "set", "--vlan", "7", "--confirm-within", "1s")
    line = thimble(*words)
    assert line.code != 0 and "cannot reach the host with its new settings" in line.err
    assert "undone automatically at " in line.err and "management.confirm" not in host.verbs


def test_an_answer_that_went_with_the_old_address_is_not_missed(host, thimble) -> None:
    def lost(request: httpx.Request) -> Any:
        raise httpx.ReadTimeout("", request=request)

    host.answers |= {
        "management.change": lost,
        "management.get": management(NEW, in_force=True),
        "management.confirm": management(NEW),
    }
    assert thimble("host", "network", "set", "--vlan", "7").code == 0


def test_what_is_undone_meanwhile_is_not_called_confirmed(host, thimble) -> None:
    host.answers |= {
        "management.change": management(NEW, in_force=True),
        "management.get": management(OLD),
    }
    line = thimble("host", "network", "set", "--vlan", "7")
    assert line.code != 0 and "no longer on trial" in line.err


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (("--vlan", "7", "--keep"), {"vlan": 7, "confirm_within": 0}),
        (("--dns", "10.0.0.1", "--dns", "10.0.0.2"), {"dns": ["10.0.0.1", "10.0.0.2"], "confirm_within": 0}),
        (("--ntp", "", "--keep"), {"ntp": [], "confirm_within": 0}),
        (("--address", "dhcp", "--keep"), {"address": "dhcp", "gateway": "", "confirm_within": 0}),
    ],
)
def test_what_cannot_cut_the_host_off_or_shall_be_kept_is_not_tried(
    host, thimble, words: tuple[str, ...], sent: dict[str, Any]
) -> None:
    host.answers["management.change"] = management(NEW)
    line = thimble("host", "network", "set", *words)
    assert (line.code, host.body("management.change")) == (0, sent)
    assert host.verbs == ["management.change"]


def test_what_is_so_already_needs_no_confirmation(host, thimble) -> None:
    host.answers["management.change"] = management(NEW)
    line = thimble("host", "network", "set", "--vlan", "0")
    assert (line.code, line.out) == (
        0,
        "nothing to change: the management network has these settings already\n",
    )


def test_the_settings_are_shown_and_what_waits_for_confirmation(host, thimble) -> None:
    host.answers["management.get"] = management(NEW, in_force=True)
    line = thimble("host", "network")
    assert "10.0.0.6/24, gateway 10.0.0.1" in line.out
    assert "in force; undone in 50" in line.out and "address dhcp, gateway none" in line.out
    assert '"in_force":' in thimble("host", "network", "--json").out


def test_confirming_and_undoing_by_hand(host, thimble) -> None:
    host.answers |= {"management.confirm": management(NEW), "management.undo": management(OLD)}
    assert thimble("host", "network", "confirm").out == "the new management network settings are permanent\n"
    assert "has its old settings" in thimble("host", "network", "undo").out
    host.answers["management.confirm"] = Problem(Code.CONFLICT, "nothing is confirmed")
    assert thimble("host", "network", "confirm").code == 6


@pytest.mark.parametrize(
    ("url", "addresses", "wanted"),
    [
        ("https://a", ("10.0.0.6/24",), ("https://10.0.0.6", "https://a")),
        ("https://10.0.0.6", ("10.0.0.6/25",), ("https://10.0.0.6",)),
        ("https://a:8443", ("dhcp", "2001:db8::5/64"), ("https://[2001:db8::5]:8443", "https://a:8443")),
        ("https://a", ("dhcp", "off"), ("https://a",)),
    ],
)
def test_where_the_host_may_answer(url: str, addresses: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    assert reconnect.candidates(url, *addresses) == wanted
