"""MAC addresses."""

from __future__ import annotations

import pytest

from thimble.core.ids import is_mac, mac_reasons


@pytest.mark.parametrize(
    "mac",
    ["", "52:54:00:aa:bb", "zz:54:00:aa:bb:cc", "52:54:00:1\n", "52-54-00-aa-bb-cc", "52:54:00:aa:bb:cc:dd"],
)
def test_what_is_no_mac_is_none(mac: str) -> None:
    assert not is_mac(mac)
    assert "is not a MAC address" in mac_reasons(mac, "$.mac")[0].message


def test_a_mac_of_a_group_or_of_nobody_is_no_cards() -> None:
    assert not mac_reasons("52:54:00:AA:bb:cc", "$.mac")
    for mac in ("01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"):
        assert is_mac(mac)
        assert [reason.path for reason in mac_reasons(mac, "$.mac")] == ["$.mac"]
