from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.contract.network import Forward, Protocol, SwitchCreate, SwitchKind
from thimble.core.problem import Code, Problem
from thimble.network import effects as do
from thimble.network import plan, render, rules, subnet
from thimble.network.records import PortUse, SwitchRecord
from thimble.network.subnet import Subnet
from thimble.sys.link import Link

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = plan.Settings(
    owner="thimble:1", table="thimble", run="/run/thimble/network", domain="internal",
    account=("dnsmasq", "nogroup"),
)  # fmt: skip
WEB = PortUse(
    vm_id="vm-1", vm_name="web_1.a", nic="nic0", switch="nat", mac="52:54:00:00:00:01", ip="192.168.77.5"
)
DB = PortUse(vm_id="vm-2", vm_name="db", nic="nic0", switch="nat", mac="52:54:00:00:00:02", ip="192.168.77.9")
NAT = SwitchRecord(
    kind=SwitchKind.NAT,
    bridge="tb-aaaaaaaa",
    subnet="192.168.77.0/24",
    forwards=(
        Forward(port=2222, vm="vm-1", to_port=22),
        Forward(port=5353, vm="db", to_port=53, protocol=Protocol.UDP),
        Forward(port=80, vm="not-there", to_port=80),
    ),
)
SWITCHES = {
    "nat": NAT,
    "lab": SwitchRecord(kind=SwitchKind.NAT, bridge="tb-bbbbbbbb", subnet="10.9.0.0/20"),
    "quiet": SwitchRecord(kind=SwitchKind.ISOLATED, bridge="tb-cccccccc"),
    "uplink": SwitchRecord(kind=SwitchKind.BRIDGED, bridge="uplink", uplink="eth0", adopted=True),
    "wire": SwitchRecord(kind=SwitchKind.BRIDGED, bridge="tb-dddddddd", uplink="eth1"),
}


def golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        raise AssertionError(f"{path} was missing and is written now: look at it")
    assert text == path.read_text()


def test_the_rules_are_as_reviewed() -> None:
    golden("thimble.nft", plan.wanted(SWITCHES, (WEB, DB), SETTINGS).rules)


def test_dnsmasq_is_driven_as_reviewed() -> None:
    (dhcp,) = plan.wanted(SWITCHES, (WEB, DB), SETTINGS).dhcp
    assert dhcp.switch == "nat", "nobody is on the other"
    golden("dnsmasq.conf", dhcp.config)
    golden("dnsmasq.hosts", dhcp.hosts)
    golden("dnsmasq.names", dhcp.names)


def test_the_rules_carry_a_digest_that_changes_with_them() -> None:
    one = plan.wanted(SWITCHES, (WEB, DB), SETTINGS).rules
    other = plan.wanted(SWITCHES, (WEB,), SETTINGS).rules
    assert len(render.rules_digest(one)) == 8
    assert render.rules_digest(one) != render.rules_digest(other)
    assert render.rules_digest("") == ""


def apply(actual: plan.Actual, effects: tuple[do.Effect, ...]) -> plan.Actual:
    """The kernel, as far as the plan can see it."""
    links, standing, sysctls = dict(actual.links), actual.rules, dict(actual.sysctls)
    dhcp = dict(actual.dhcp)

    def change(name: str, **to: object) -> None:
        old = links[name]
        fields = {field: getattr(old, field) for field in old.__struct_fields__}
        links[name] = Link(**{**fields, **to})  # type: ignore[arg-type]

    for effect in effects:
        match effect:
            case do.MakeBridge():
                assert effect.bridge not in links
                links[effect.bridge] = Link(name=effect.bridge, kind="bridge", alias=effect.owner, ether=True)
            case do.Claim():
                change(effect.bridge, alias=effect.owner)
            case do.SetAddress():
                change(effect.bridge, addresses=(*links[effect.bridge].addresses, effect.address))
            case do.DropAddress():
                left = [a for a in links[effect.bridge].addresses if a != effect.address]
                change(effect.bridge, addresses=tuple(left))
            case do.JoinUplink():
                change(effect.nic, master=effect.bridge, up=True)
            case do.SetUp():
                change(effect.bridge, up=True)
            case do.RemoveBridge():
                del links[effect.bridge]
            case do.SetSysctl():
                sysctls[effect.key] = effect.value
            case do.LoadRules():
                standing = render.rules_digest(effect.text)
            case do.DropRules():
                standing = ""
            case do.StopDhcp():
                del dhcp[effect.bridge]
            case do.StartDhcp() | do.TellDhcp():
                dhcp[effect.plan.bridge] = effect.plan
    return plan.Actual(links=links, rules=standing, sysctls=sysctls, dhcp=dhcp)


HOST = {
    "lo": Link(name="lo"),
    "eth0": Link(name="eth0", ether=True, up=True, master="uplink"),
    "eth1": Link(name="eth1", ether=True),
    "uplink": Link(name="uplink", kind="bridge", ether=True, up=True, addresses=("10.0.0.5/24",)),
    "docker0": Link(name="docker0", kind="bridge", ether=True, addresses=("172.17.0.1/16",)),
}
wishes = st.sets(st.sampled_from(sorted(SWITCHES))).map(lambda names: {n: SWITCHES[n] for n in names})
guests = st.sets(st.sampled_from([WEB, DB])).map(lambda hosts: tuple(sorted(hosts, key=str)))


@given(st.lists(st.tuples(wishes, guests), min_size=1, max_size=4))
def test_planning_again_after_applying_yields_nothing(
    steps: list[tuple[dict[str, SwitchRecord], tuple[PortUse, ...]]],
) -> None:
    actual = plan.Actual(links=HOST)
    for switches, hosts in steps:
        want = plan.wanted(switches, hosts, SETTINGS)
        actual = apply(actual, plan.plan(want, actual))
        assert plan.plan(want, actual) == ()
        for name in ("lo", "eth0", "uplink", "docker0"):
            assert actual.links[name] == HOST[name], "somebody else's link was touched"


@given(wishes, guests)
def test_taking_all_away_leaves_the_host_as_it_was(
    switches: dict[str, SwitchRecord], hosts: tuple[PortUse, ...]
) -> None:
    want = plan.wanted(switches, hosts, SETTINGS)
    actual = apply(plan.Actual(links=HOST), plan.plan(want, plan.Actual(links=HOST)))
    nothing = plan.Wanted(owner=SETTINGS.owner)
    after = apply(actual, plan.plan(nothing, actual))
    assert set(after.links) == set(HOST)
    assert after.rules == ""
    assert after.dhcp == {}


def test_a_bridge_made_by_an_agent_that_crashed_at_once_is_claimed() -> None:
    links = {**HOST, "tb-cccccccc": Link(name="tb-cccccccc", kind="bridge", ether=True)}
    want = plan.wanted({"quiet": SWITCHES["quiet"]}, (), SETTINGS)
    actual = apply(plan.Actual(links=links), plan.plan(want, plan.Actual(links=links)))
    assert actual.links["tb-cccccccc"].alias == SETTINGS.owner
    assert plan.plan(want, actual) == ()


def test_every_effect_can_tell_itself() -> None:
    want = plan.wanted(SWITCHES, (WEB, DB), SETTINGS)
    told = [effect.describe() for effect in plan.plan(want, plan.Actual(links=HOST))]
    assert "makes the bridge tb-aaaaaaaa for the switch nat" in told
    assert "puts eth1 into tb-dddddddd" in told
    assert "loads 2 forwards and address translation" in told
    assert all(told)


def test_a_new_vm_does_not_restart_dnsmasq() -> None:
    before = plan.wanted(SWITCHES, (WEB,), SETTINGS)
    actual = apply(plan.Actual(links=HOST), plan.plan(before, plan.Actual(links=HOST)))
    effects = plan.plan(plan.wanted(SWITCHES, (WEB, DB), SETTINGS), actual)
    assert [type(effect) for effect in effects] == [do.LoadRules, do.TellDhcp]


def test_another_agents_bridges_are_left_alone() -> None:
    theirs = {"tb-99999999": Link(name="tb-99999999", kind="bridge", alias="thimble:2")}
    assert plan.plan(plan.Wanted(owner="thimble:1"), plan.Actual(links=theirs)) == ()


# Subnets


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 32))
def test_subnets_are_written_as_they_are_read(base: int, prefix: int) -> None:
    size = 1 << (32 - prefix)
    net = Subnet(base // size * size, prefix)
    assert subnet.parse(str(net)) == net


@given(st.text(alphabet="0123456789./ -٣", max_size=20))
def test_what_is_no_subnet_is_not_read_as_one(text: str) -> None:
    net = subnet.parse(text)
    assert net is None or text.isascii()


def test_a_subnet_has_its_parts_at_their_places() -> None:
    net = subnet.parse("192.168.77.0/24")
    assert net is not None
    assert (net.gateway, net.cidr, net.netmask) == ("192.168.77.1", "192.168.77.1/24", "255.255.255.0")
    assert net.dynamic == ("192.168.77.205", "192.168.77.254")
    assert subnet.parse("192.168.77.1/24") is None


@given(st.integers(subnet.PREFIX_MIN, subnet.PREFIX_MAX), st.binary(min_size=6, max_size=6))
def test_static_and_dynamic_addresses_never_meet(prefix: int, raw: bytes) -> None:
    net = Subnet(10 << 24, prefix)
    mac = ":".join(f"{byte:02x}" for byte in raw)
    address = subnet.address_for(net, mac, set())
    number, first, last = (subnet.number_of(a) for a in (address, *net.dynamic))
    assert number is not None and first is not None and last is not None
    assert net.base + 2 <= number < first <= last < net.base + net.size - 1
    assert address == subnet.address_for(net, mac.upper(), set())


def test_a_full_subnet_is_refused_only_when_it_is_full() -> None:
    net = Subnet(10 << 24, 28)
    taken: set[str] = set()
    for number in range(net.static_count):
        address = subnet.address_for(net, f"52:54:00:00:00:{number:02x}", taken)
        assert address not in taken
        taken.add(address)
    with pytest.raises(Problem) as error:
        subnet.address_for(net, "52:54:00:ff:ff:ff", taken)
    assert error.value.code is Code.IN_USE


def test_a_free_subnet_avoids_the_hosts_routes() -> None:
    taken = [Subnet((192 << 24) + (168 << 16) + (x << 8), 24) for x in range(256) if x != 99]
    assert str(subnet.choose(taken, 7)) == "192.168.99.0/24"
    everything = Subnet((192 << 24) + (168 << 16), 16)
    assert subnet.choose([everything], 7) is None


# Rules


def reasons(**more: object) -> list[tuple[str, Code]]:
    facts = rules.Facts(
        switches=SWITCHES,
        links={**HOST, "eth2": Link(name="eth2", ether=True, addresses=("10.1.1.1/24",))},
        routes=(Subnet(10 << 24, 16), Subnet(0, 0)),
        default_route=("eth3",),
        hosts=(WEB, DB),
        listening=frozenset({(Protocol.TCP, 443)}),
    )
    request = SwitchCreate(**more)  # type: ignore[arg-type]
    return [(reason.path, reason.code) for reason in rules.create_reasons(request, facts)]


def test_good_switches_are_accepted() -> None:
    assert reasons(name="x", kind=SwitchKind.NAT) == []
    assert reasons(name="x", kind=SwitchKind.NAT, subnet="192.168.5.0/24") == []
    assert reasons(name="x", kind=SwitchKind.ISOLATED) == []
    assert reasons(name="x", kind=SwitchKind.BRIDGED, uplink="docker0") == []


@pytest.mark.parametrize(
    ("more", "path", "code"),
    [
        ({"name": "nat", "kind": SwitchKind.NAT}, "$.name", Code.EXISTS),
        ({"name": "../x", "kind": SwitchKind.NAT}, "$.name", Code.INVALID),
        ({"name": "x", "kind": SwitchKind.NAT, "subnet": "10.0.0.0/24"}, "$.subnet", Code.IN_USE),
        ({"name": "x", "kind": SwitchKind.NAT, "subnet": "192.168.77.0/25"}, "$.subnet", Code.IN_USE),
        ({"name": "x", "kind": SwitchKind.NAT, "subnet": "8.8.8.0/24"}, "$.subnet", Code.INVALID),
        ({"name": "x", "kind": SwitchKind.NAT, "subnet": "192.168.5.0/30"}, "$.subnet", Code.INVALID),
        ({"name": "x", "kind": SwitchKind.NAT, "subnet": "192.168.5.7/24"}, "$.subnet", Code.INVALID),
        ({"name": "x", "kind": SwitchKind.NAT, "uplink": "eth1"}, "$.uplink", Code.INVALID),
        ({"name": "x", "kind": SwitchKind.BRIDGED}, "$.uplink", Code.INVALID),
        ({"name": "x", "kind": SwitchKind.BRIDGED, "uplink": "eth9"}, "$.uplink", Code.NOT_FOUND),
        ({"name": "x", "kind": SwitchKind.BRIDGED, "uplink": "eth0"}, "$.uplink", Code.IN_USE),
        ({"name": "x", "kind": SwitchKind.BRIDGED, "uplink": "eth1"}, "$.uplink", Code.IN_USE),
        ({"name": "x", "kind": SwitchKind.BRIDGED, "uplink": "eth2"}, "$.uplink", Code.CONFLICT),
        ({"name": "x", "kind": SwitchKind.BRIDGED, "uplink": "lo"}, "$.uplink", Code.INVALID),
        ({"name": "x", "kind": SwitchKind.ISOLATED, "subnet": "192.168.5.0/24"}, "$.subnet", Code.INVALID),
    ],
)
def test_bad_switches_are_refused_with_the_field_at_fault(
    more: dict[str, object], path: str, code: Code
) -> None:
    assert reasons(**more) == [(path, code)]


@pytest.mark.parametrize(
    ("forward", "path", "code"),
    [
        (Forward(port=443, vm="db", to_port=1), "port", Code.IN_USE),
        (Forward(port=2222, vm="db", to_port=1), "port", Code.IN_USE),
        (Forward(port=81, vm="nobody", to_port=1), "vm", Code.NOT_FOUND),
    ],
)
def test_bad_forwards_are_refused(forward: Forward, path: str, code: Code) -> None:
    facts = rules.Facts(
        switches={"nat": NAT, "other": SwitchRecord(kind=SwitchKind.NAT, bridge="b", subnet="10.2.0.0/16")},
        hosts=(WEB, PortUse(vm_id="v", vm_name="db", nic="n", switch="other", mac="", ip="10.2.0.7")),
        listening=frozenset({(Protocol.TCP, 443)}),
    )
    found = rules.forward_reasons("other", (forward,), facts)
    assert [(reason.path, reason.code) for reason in found] == [(f"$.forwards[0].{path}", code)]
    twice = (Forward(port=99, vm="db", to_port=1),) * 2
    assert [r.path for r in rules.forward_reasons("other", twice, facts)] == ["$.forwards[1].port"]


def test_a_mac_is_used_once() -> None:
    assert rules.mac_reasons(WEB.mac.upper(), (WEB,), "", "$.mac")[0].code is Code.IN_USE
    assert not rules.mac_reasons(WEB.mac, (WEB,), "vm-1", "$.mac")
    assert not rules.mac_reasons("52:54:00:aa:bb:cc", (WEB,), "", "$.mac")
