"""Which settings the management network follows, and how it goes over to others."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thimble.boot.disks import document
from thimble.boot.net import addressing, ipparam, management
from thimble.boot.net.addressing import Addressing, removal, setting
from thimble.boot.net.ipparam import UplinkPlan
from thimble.contract.management import ManagementSettings
from thimble.state.store import Collection

STATIC = {"address": "10.0.0.5/24", "gateway": "10.0.0.1", "dns": ["10.0.0.1"], "address6": "off"}


def record(**values: Any) -> str:
    return json.dumps({"format": 1, "rev": 3, "record": values})


def planned(table: object) -> UplinkPlan:
    return management.from_table(table, "the record")


def test_the_command_line_wins_over_the_record_and_that_over_the_document() -> None:
    line = ipparam.plan(["dhcp"])
    nothing = ipparam.plan([])
    assert management.plan(line, record(**STATIC), {"vlan": 5}) is line
    assert management.plan(nothing, record(**STATIC), {"vlan": 5}).source == "the record"
    assert management.plan(nothing, "", {"vlan": 5}).vlan == 5
    assert management.plan(nothing, "", None) is nothing


def test_static_settings_leave_no_dhcp_behind() -> None:
    found = planned({**STATIC, "nic": "52:54:00:AA:00:01", "vlan": 12})
    (static,) = found.static
    assert (static.address, static.prefix, static.gateway, found.dns) == (
        "10.0.0.5",
        24,
        "10.0.0.1",
        ["10.0.0.1"],
    )
    assert (found.dhcp, found.device, found.vlan, found.warnings) == ([], "52:54:00:aa:00:01", 12, [])


def test_one_family_can_be_static_and_the_other_automatic() -> None:
    found = planned({"address6": "2001:db8::5/64", "gateway6": "2001:db8::1"})
    assert [item.family for item in found.static] == [6]
    assert found.dhcp == [4]


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"address": "10.0.0.5"}, "address '10.0.0.5'"),
        ({"address": "10.0.0.5/33"}, "10.0.0.5/33"),
        ({"address": 5}, "address 5"),
        ({"address": "10.0.0.5/24", "gateway": "fe80::1"}, "gateway 'fe80::1'"),
        ({"vlan": 4095}, "vlan 4095"),
        ({"vlan": True}, "vlan True"),
        ({"dns": "10.0.0.1"}, "dns"),
        ({"dns": ["here"]}, "dns"),
        ({"ntp": "t1"}, "ntp"),
        ({"ntp": ["a b"]}, "ntp"),
        ({"adress": "dhcp"}, "'adress'"),
        ({"address": "off", "address6": "off"}, "both"),
        ("expected = at line 1", "line 1"),
        ([], "not a table"),
    ],
)
def test_wrong_settings_are_told_and_dhcp_is_used(table: object, word: str) -> None:
    found = planned(table)
    assert (found.static, found.dhcp) == ([], [4, 6])
    (warning,) = found.warnings
    assert word in warning


def test_time_servers_come_from_the_record_or_from_the_documents_time() -> None:
    assert management.plan(ipparam.plan([]), record(ntp=["t1", "10.0.0.1"]), None).ntp == ["t1", "10.0.0.1"]
    written = b'[management]\nvlan = 5\n[time]\nservers = ["t2"]\n'
    assert document.management(written) == {"vlan": 5, "ntp": ["t2"]}
    assert document.management(b'[time]\nservers = ["t2"]\n') == {"ntp": ["t2"]}
    assert document.management(b"[time]\n") is None


def test_what_the_agent_keeps_is_what_pid_1_reads(tmp_path: Path) -> None:
    """One record, two readers who share no code."""
    given = ManagementSettings(**STATIC | {"dns": ("10.0.0.1",), "nic": "52:54:00:aa:00:01", "ntp": ("t1",)})
    kept: Collection[ManagementSettings] = Collection(ManagementSettings, noun="x")
    kept.add_root("", tmp_path / "management")
    kept.put("management", given)
    found = management.plan(ipparam.plan([]), management.read_record(str(tmp_path)), None)
    assert (found.source, found.warnings, found.ntp, found.dns) == ("the record", [], ["t1"], ["10.0.0.1"])
    assert (found.static[0].address, found.device) == ("10.0.0.5", "52:54:00:aa:00:01")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2, "record": {}}', '{"format": 1}', "null"])
def test_a_damaged_record_is_told_and_dhcp_is_used(text: str) -> None:
    found = management.plan(ipparam.plan([]), text, None)
    assert found.dhcp == [4, 6]
    assert len(found.warnings) == 1


def test_a_vlan_gets_an_interface_of_its_own_before_addresses() -> None:
    assert setting(planned({**STATIC, "vlan": 7}), "uplink", "uplink.7") == [
        "link add link uplink name uplink.7 type vlan id 7",
        "link set uplink.7 up",
        "address replace 10.0.0.5/24 dev uplink.7",
        "route replace default via 10.0.0.1 dev uplink.7",
    ]


def test_what_the_new_settings_keep_is_not_taken_away() -> None:
    old, new = planned(STATIC), planned({**STATIC, "address": "10.0.0.6/24"})
    there = {"10.0.0.5": 24, "10.0.0.6": 24, "fe80::1": 64}
    assert removal(old, "uplink", there, new, "uplink") == ["address delete 10.0.0.5/24 dev uplink"]


def test_a_family_that_stays_automatic_keeps_its_addresses() -> None:
    there = {"10.0.0.77": 24, "2001:db8::7": 64}
    new = planned({"address": "10.0.0.5/24"})
    assert removal(planned({}), "uplink", there, new, "uplink") == ["address delete 10.0.0.77/24 dev uplink"]
    assert len(removal(planned({}), "uplink", there, planned({"vlan": 3}), "uplink.3")) == 2


def test_a_vlan_that_is_left_takes_its_addresses_along() -> None:
    old = planned({**STATIC, "vlan": 7})
    assert removal(old, "uplink.7", {"10.0.0.5": 24}, planned({}), "uplink") == ["link delete uplink.7"]


class Wire:
    """An `Addressing` whose programs are only noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        self.ran: list[str] = []
        self.said: list[str] = []
        self.timers: list[Any] = []
        self.leased: list[str] = []
        self.signalled: list[int] = []
        monkeypatch.setattr(addressing, "BATCH", str(tmp_path / "{}.ip"))
        monkeypatch.setattr(addressing, "DHCPCD_CONF", str(tmp_path / "dhcpcd.conf"))
        loop = SimpleNamespace(after=self.after)
        children = SimpleNamespace(spawn=self.spawn, last_output=lambda _: "")
        anything: Any = (loop, children)
        self.it = Addressing(*anything, "uplink", self.said.append, lambda: None)
        monkeypatch.setattr(self.it.dhcpcd, "signal", self.signalled.append)

    def after(self, _seconds: float, call: Any) -> Any:
        self.timers.append(call)
        return SimpleNamespace(cancel=lambda: None)

    def spawn(self, argv: list[str], on_exit: Any, **more: Any) -> int:
        if argv[0] == addressing.IP:
            with open(argv[-1]) as file:
                self.ran += file.read().splitlines()
            on_exit(0)
        elif "--dumplease" in argv:
            more["collect"].extend(self.leased)
            on_exit(0)
        else:
            self.ran.append(argv[-1])
        return 77  # nobody's: what it would be sent is only noted

    def on_address(self, address: str) -> None:
        self.it.on_address(address, 24, gone=False, usable=True)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Wire:
    return Wire(monkeypatch, tmp_path)


def test_old_addresses_go_only_when_a_new_one_is_there(wire: Wire) -> None:
    wire.it.apply(planned({}))
    wire.on_address("10.0.0.77")
    wire.ran.clear()
    wire.it.apply(planned(STATIC))
    assert "address delete 10.0.0.77/24 dev uplink" not in wire.ran
    wire.on_address("10.0.0.5")
    assert wire.ran[-1] == "address delete 10.0.0.77/24 dev uplink"


def test_a_static_address_stays_until_dhcp_brings_another(wire: Wire) -> None:
    wire.it.apply(planned(STATIC))
    wire.on_address("10.0.0.5")
    wire.it.apply(planned({}))
    wire.on_address("169.254.3.4")
    assert not any("delete" in line for line in wire.ran)
    wire.on_address("10.0.0.80")
    assert "address delete 10.0.0.5/24 dev uplink" in wire.ran


def test_a_silent_dhcp_server_is_told_with_what_there_is_instead(wire: Wire) -> None:
    wire.it.apply(planned({}))
    wire.on_address("169.254.3.4")
    silent = wire.timers[0]
    silent()
    assert wire.it.problem == "no DHCP server answers on uplink: the host has 169.254.3.4"
    assert wire.said == [f"warning: {wire.it.problem}"]
    wire.on_address("10.0.0.80")
    assert wire.it.problem == ""


def test_settings_that_are_taken_back_keep_the_address_they_come_back_to(wire: Wire) -> None:
    """A wrong VLAN: no address ever came there, and the old one was never taken away."""
    wire.it.apply(planned({}))
    wire.on_address("10.0.0.77")
    assert wire.it.settled
    wire.it.apply(planned({"vlan": 7}))
    assert not wire.it.settled and wire.it.addresses == {}
    wire.it.apply(planned({}))
    wire.ran.clear()
    wire.on_address("10.0.0.77")
    assert wire.ran == ["link delete uplink.7"]
    assert wire.it.settled


def test_a_wrong_address_goes_when_the_old_settings_are_back(wire: Wire) -> None:
    wire.it.apply(planned(STATIC))
    wire.on_address("10.0.0.5")
    wire.it.apply(planned({**STATIC, "address": "10.0.0.6/24"}))
    wire.on_address("10.0.0.6")
    wire.it.on_address("10.0.0.5", 24, gone=True, usable=False)
    assert wire.it.settled
    wire.it.apply(planned(STATIC))
    wire.ran.clear()
    wire.on_address("10.0.0.5")
    assert wire.ran == ["address delete 10.0.0.6/24 dev uplink"]


def test_settings_taken_back_before_they_were_there_delete_nothing_that_is_wanted(wire: Wire) -> None:
    wire.it.apply(planned({}))
    wire.on_address("10.0.0.77")
    wire.it.apply(planned({**STATIC, "address": "10.0.0.6/24"}))  # never seen on the link
    wire.it.apply(planned({}))
    assert wire.it.settled and wire.it.addresses == {"10.0.0.77": 24}
    assert not any(line.startswith("address delete") for line in wire.ran)


def test_an_old_address_that_stays_for_want_of_a_new_one_is_told(wire: Wire) -> None:
    wire.it.apply(planned(STATIC))
    wire.on_address("10.0.0.5")
    wire.it.apply(planned({}))
    wire.timers[-1]()
    assert wire.it.problem == "no DHCP server answers on uplink: the host keeps 10.0.0.5"
    assert not wire.it.settled
    wire.on_address("10.0.0.80")
    assert wire.it.settled and wire.it.problem == ""


def test_a_static_address_that_the_dhcp_server_gives_as_well_stays(wire: Wire) -> None:
    wire.it.apply(planned(STATIC))
    wire.on_address("10.0.0.5")
    wire.it.apply(planned({}))
    wire.leased = ["reason=BOUND", "ip_address=10.0.0.5", "routers=10.0.0.1"]
    wire.on_address("10.0.0.5")
    assert not wire.it.settled
    wire.ran.clear()
    wire.timers[-1]()  # a moment later the client is asked what it has
    assert wire.it.settled
    assert wire.ran == ["route delete default via 10.0.0.1 dev uplink"]


def test_router_advertisements_are_no_reason_to_take_an_ipv4_address_that_dhcp_is_to_replace(
    wire: Wire,
) -> None:
    wire.it.apply(planned({**STATIC, "address6": "auto"}))
    wire.on_address("10.0.0.5")
    wire.on_address("2001:db8::7")
    wire.it.apply(planned({}))
    wire.on_address("2001:db8::8")
    assert not wire.it.settled and not any("delete 10.0.0.5" in line for line in wire.ran)
    wire.on_address("10.0.0.80")
    assert wire.it.settled and "address delete 10.0.0.5/24 dev uplink" in wire.ran
