"""What the kernel and dhcpcd tell is understood, and junk does no harm."""

from __future__ import annotations

import struct
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from thimble.boot import events
from thimble.boot.devices import uevent
from thimble.boot.disks import superblock
from thimble.boot.net import lease, rtnl
from thimble.boot.net.netaddr import is_link_local
from thimble.boot.pid1 import Pid1

DUMP = """\
reason=BOUND
interface=uplink
protocol=dhcp
ip_address=10.0.2.15
routers='10.0.2.2'
domain_name_servers='10.0.2.3 10.0.2.4'
domain_name='lab.example'
host_name='it'\\''s'
ntp_servers=10.0.2.9

reason=ROUTERADVERT
interface=uplink
protocol=ra
nd1_rdnss='fec0::3 10.0.2.3'
nd1_dnssl='lab.example v6.example'
"""


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", len(body) + 16, kind, 0, 0, 0) + body + b"\0" * (-len(body) % 4)


def link(kind: int, flags: int, name: str = "eth0") -> bytes:
    body = struct.pack("=BxHiII", 0, 1, 3, flags, 0)
    return message(
        kind, body + attribute(3, name.encode() + b"\0") + attribute(1, bytes.fromhex("525400123456"))
    )


def test_the_password_is_shown_each_time_it_is_new_and_never_logged() -> None:
    shown: list[str] = []
    logged: list[str] = []
    pid1 = Pid1.__new__(Pid1)
    pid1.is_ready, pid1.ready_done = False, lambda: None
    pid1.say = logged.append  # type: ignore[method-assign]
    pid1.uplink = SimpleNamespace(urls=list)  # type: ignore[assignment]
    pid1.write_facts = lambda: None  # type: ignore[method-assign]
    pid1.consoles = SimpleNamespace(show_login=shown.append)  # type: ignore[assignment]
    pid1.power = SimpleNamespace(agent_ready=lambda: None)  # type: ignore[assignment]
    events.on_ready(pid1, ["certificate"], "password one")
    events.on_ready(pid1, ["certificate"], "password two")
    events.on_ready(pid1, ["certificate"], "")
    assert shown == ["password one", "password two"]
    assert not any("password" in line for line in logged)


def test_a_uevent_becomes_its_variables() -> None:
    raw = b"add@/devices/x\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=vda\0"
    assert uevent.parse(raw) == {"ACTION": "add", "SUBSYSTEM": "block", "DEVNAME": "vda"}


def test_what_is_no_uevent_of_the_kernel_is_nothing() -> None:
    assert uevent.parse(b"libudev\0\xfe\xed\xca\xfe" + b"\0" * 30) == {}
    assert uevent.parse(b"") == {}


def test_a_link_tells_name_mac_and_carrier() -> None:
    (up,) = rtnl.parse(link(rtnl.RTM_NEWLINK, rtnl.IFF_UP | rtnl.IFF_LOWER_UP))
    assert isinstance(up, rtnl.LinkMessage)
    assert (up.index, up.name, up.mac, up.has_carrier(), up.gone) == (
        3,
        "eth0",
        "52:54:00:12:34:56",
        True,
        False,
    )
    (down,) = rtnl.parse(link(rtnl.RTM_NEWLINK, rtnl.IFF_UP))
    assert isinstance(down, rtnl.LinkMessage)
    assert not down.has_carrier()


def test_two_messages_in_one_datagram_are_both_read() -> None:
    found = rtnl.parse(link(rtnl.RTM_NEWLINK, 1) + link(rtnl.RTM_DELLINK, 0, "eth1"))
    assert [item.gone for item in found] == [False, True]


def test_an_address_is_usable_only_after_duplicate_detection() -> None:
    body = struct.pack("=BBBBI", 10, 64, 0x40, 0, 3) + attribute(
        1, bytes.fromhex("20010db8" + "0" * 22 + "07")
    )
    (tentative,) = rtnl.parse(message(rtnl.RTM_NEWADDR, body))
    assert isinstance(tentative, rtnl.AddressMessage)
    assert (tentative.address, tentative.prefix, tentative.usable) == ("2001:db8::7", 64, False)
    (final,) = rtnl.parse(message(rtnl.RTM_NEWADDR, body + attribute(8, (0x80).to_bytes(4, "little"))))
    assert isinstance(final, rtnl.AddressMessage)
    assert final.usable


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parsers(data: bytes) -> None:
    rtnl.parse(data)
    rtnl.parse(message(rtnl.RTM_NEWLINK, data))
    rtnl.parse(message(rtnl.RTM_NEWADDR, data))
    uevent.parse(data)
    superblock.parse(data * 6)


def test_the_lease_of_both_families_is_merged_without_doubles() -> None:
    facts = lease.facts(lease.parse_dump(DUMP))
    assert facts.dns == ["10.0.2.3", "10.0.2.4", "fec0::3"]
    assert facts.search == ["lab.example", "v6.example"]
    assert (facts.domain, facts.hostname, facts.ntp) == ("lab.example", "it's", ["10.0.2.9"])


def test_an_empty_dump_gives_no_facts() -> None:
    assert lease.parse_dump("\n") == []
    assert lease.facts([]).dns == []


def test_the_resolver_gets_three_servers_at_most() -> None:
    text = lease.resolv_conf(["1.1.1.1", "::2", "3.3.3.3", "4.4.4.4"], ["a.example", "b.example"])
    assert text == "search a.example b.example\nnameserver 1.1.1.1\nnameserver ::2\nnameserver 3.3.3.3\n"
    assert lease.resolv_conf([], []) == ""


def ext4(state: int = 1, incompat: int = 0, label: bytes = b"thimble-state") -> bytes:
    block = bytearray(1024)
    block[0x38:0x3A] = b"\x53\xef"
    block[0x3A] = state
    block[0x60] = incompat
    block[0x78 : 0x78 + len(label)] = label
    return bytes(block)


def test_a_superblock_tells_label_and_whether_it_is_clean() -> None:
    found = superblock.parse(ext4())
    assert found is not None
    assert (found.label, found.clean) == ("thimble-state", True)


def test_errors_an_unclean_end_or_a_journal_to_replay_want_a_check() -> None:
    for block in (ext4(state=0), ext4(state=3), ext4(incompat=4)):
        found = superblock.parse(block)
        assert found is not None
        assert not found.clean


def test_a_label_may_fill_its_field() -> None:
    found = superblock.parse(ext4(label=b"exactly-16-bytes"))
    assert found is not None
    assert found.label == "exactly-16-bytes"


def test_what_is_not_ext_or_too_short_has_no_superblock() -> None:
    assert superblock.parse(b"\0" * 1024) is None
    assert superblock.parse(ext4()[:1000]) is None


def test_link_local_addresses_are_known_as_such() -> None:
    assert is_link_local("fe80::1")
    assert is_link_local("169.254.3.4")
    assert not is_link_local("10.0.0.1")
