"""`ip=` means what the kernel's documentation says."""

from __future__ import annotations

import pytest

from thimble.boot.net.ipparam import plan, split_fields


def test_without_ip_both_families_are_automatic() -> None:
    found = plan([])
    assert (found.dhcp, found.static, found.warnings) == ([4, 6], [], [])


@pytest.mark.parametrize("value", ["dhcp", "on", "any", ":::::eth0:dhcp"])
def test_dhcp_is_what_happens_anyway(value: str) -> None:
    assert plan([value]).dhcp == [4, 6]


def test_device_and_dhcp_alone_name_the_card() -> None:
    assert plan(["eth1:dhcp"]).device == "eth1"
    assert plan(["::::host:eth1:dhcp"]).hostname == "host"


def test_off_means_no_addresses() -> None:
    found = plan(["off"])
    assert (found.dhcp, found.static) == ([], [])


def test_a_full_static_line_is_read() -> None:
    found = plan(["10.0.0.7:10.0.0.9:10.0.0.1:255.255.255.0:host:eth1:off:10.0.0.3:10.0.0.4:10.0.0.5"])
    (static,) = found.static
    assert (static.family, static.address, static.prefix, static.gateway) == (4, "10.0.0.7", 24, "10.0.0.1")
    assert static.dns == ["10.0.0.3", "10.0.0.4"]
    assert (found.hostname, found.device, found.ntp) == ("host", "eth1", ["10.0.0.5"])
    assert found.dhcp == [6], "IPv6 is still automatic"


def test_ipv6_stands_in_brackets() -> None:
    found = plan(["[2001:db8::7]::[2001:db8::1]:56:h:eth0:none:[2001:db8::53]"])
    (static,) = found.static
    assert (static.family, static.address, static.prefix) == (6, "2001:db8::7", 56)
    assert (static.gateway, static.dns) == ("2001:db8::1", ["2001:db8::53"])
    assert found.dhcp == [4]


def test_both_families_may_be_static() -> None:
    found = plan(["10.0.0.7::10.0.0.1:24", "[fd00::7]::[fd00::1]:64"])
    assert [static.family for static in found.static] == [4, 6]
    assert found.dhcp == []


@pytest.mark.parametrize(("address", "prefix"), [("10.1.2.3", 8), ("172.16.0.1", 16), ("192.168.0.2", 24)])
def test_without_netmask_the_class_decides(address: str, prefix: int) -> None:
    assert plan([f"{address}::"]).static[0].prefix == prefix


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("10.0.0.300::", "not an address"),
        ("2001:db8::1::", "not an address"),
        ("10.0.0.7::10.0.0:255.0.0.0", "gateway"),
        ("10.0.0.7:::255.0.255.0", "netmask"),
        ("10.0.0.7:::0", "netmask"),
        ("10.0.0.7:::33", "netmask"),
        ("[fd00::1]:::129", "netmask"),
        ("10.0.0.7:::24::::nonsense", "name server"),
        ("10.0.0.7:::24:::::::x", "too many"),
        ("maybe", "neither"),
    ],
)
def test_a_wrong_value_is_left_out_with_the_reason(value: str, part: str) -> None:
    found = plan([value])
    assert found.static == []
    assert part in found.warnings[0]
    assert found.dhcp == [4, 6], "a typing error must not take the host off the network"


def test_brackets_protect_colons() -> None:
    assert split_fields("[a:b]:c::[d:e:f]") == ["a:b", "c", "", "d:e:f"]
