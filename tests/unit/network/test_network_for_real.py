"""Real bridges, taps, rules and dnsmasqs, in a network namespace of the test's own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import own_network
import pytest
from own_network import ask, inside, ip, machine, serve

from thimble.contract.call import Call
from thimble.contract.network import Forward, Switch, SwitchChange, SwitchCreate, SwitchKind
from thimble.core.problem import Code, Problem
from thimble.network.records import PortUse
from thimble.network.service import Network
from thimble.network.verbs import SwitchService
from thimble.state.events import Events
from thimble.sys import hostnet, link, process

MAC = "52:54:00:12:34:56"


async def agent(directory: Path, **more: str) -> tuple[Network, SwitchService]:
    network = Network(directory / "state", directory / "run", events=Events(base=1, clock=time.time), **more)
    await network.open()
    services = network.services()
    switch: SwitchService = services["switch"].get()
    return network, switch


async def get(switch: SwitchService, name: str = "nat") -> Switch:
    return await switch.get(Call(input=None, path={"switch": name}))


def host(network: Network, name: str, mac: str = MAC, switch: str = "nat") -> PortUse:
    return PortUse(
        vm_id=f"vm-{name}", vm_name=name, nic="nic0", switch=switch, mac=mac,
        ip=network.address_for(switch, mac, set()),
    )  # fmt: skip


def dhcp(namespace: str, tmp: Path) -> str:
    """Let a DHCP client configure `eth0`; its address."""
    script = tmp / "udhcpc.sh"
    script.write_text(
        '#!/bin/sh\n[ "$1" = bound ] || exit 0\n'
        'ip address replace $ip/$mask dev $interface\nip route replace default via $router\necho "DNS $dns"\n'
    )
    script.chmod(0o755)
    words = f"-i eth0 -n -q -f -t 5 -T 1 -s {script}"
    inside(namespace, "busybox", "udhcpc", *words.split())
    return ip("-n", namespace, "-4", "-br", "address", "show", "eth0").split()[2].split("/")[0]


def pid_of(tmp: Path, bridge: str) -> int:
    return int((tmp / "run" / "network" / bridge / "pid").read_text())


@own_network.own_network
async def test_a_guest_behind_nat_has_all_it_needs(tmp_path: Path) -> None:
    machine("outside", address="203.0.113.2/24")
    ip("address", "add", "203.0.113.1/24", "dev", "to-outside")
    network, switch = await agent(tmp_path)
    network.hosts = lambda: [host(network, "web1")]
    await network.sync()
    nat = await get(switch)
    assert (nat.up, nat.why) == (True, "")
    wanted = host(network, "web1").ip

    machine("guest", bridge=nat.bridge, mac=MAC)
    assert dhcp("guest", tmp_path) == wanted, "the address is the one in the VM's record"
    assert wanted in inside("guest", "busybox", "nslookup", "web1.internal", nat.gateway)
    assert wanted in inside("guest", "busybox", "nslookup", "web1", nat.gateway)

    forward = Forward(port=2222, vm="web1", to_port=22)
    await switch.change(Call(input=SwitchChange(forwards=(forward,)), path={"switch": "nat"}))
    servers = [serve("outside", 80), serve("guest", 22)]
    try:
        assert ask("guest", "203.0.113.2", 80) == "outside sees 203.0.113.1", "translated"
        assert ask("outside", "203.0.113.1", 2222) == "guest sees 203.0.113.2", "forwarded, sender kept"
        assert ask("", "127.0.0.1", 2222).startswith("guest sees")
        assert ask("", "203.0.113.1", 2222).startswith("guest sees")
        machine("guest2", bridge=nat.bridge, mac="52:54:00:00:00:02", address=f"{wanted[:-1]}/24")
        ip("-n", "guest2", "route", "add", "default", "via", nat.gateway)
        assert ask("guest2", "203.0.113.1", 2222).startswith("guest sees"), "by the host's address too"
        bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
        if bridged.exists():  # then the kernel bridges what should be routed back to where it came from
            bridged.write_text("0")
        assert ask("guest", "203.0.113.1", 2222) == f"guest sees {nat.gateway}", "a guest reaches itself"
        ip("-n", "outside", "route", "add", nat.subnet, "via", "203.0.113.1")
        assert "sees" not in ask("outside", wanted, 22, timeout=1), "nobody routes past the forwards"
        assert "53" in inside("", "ss", "-lnuH", "src", nat.gateway)
        assert "timed out" in inside(
            "outside", "busybox", "nslookup", "web1.internal", "203.0.113.1", check=False, timeout=40
        ), "the guests' DNS answers nobody else"
    finally:
        for server in servers:
            server.kill()
    await network.remove()
    assert "tb-" not in ip("-br", "link")
    assert inside("", "nft", "list", "ruleset") == ""


@own_network.own_network
async def test_guests_reach_of_the_host_what_they_need_and_nothing_else(tmp_path: Path) -> None:
    machine("outside", address="203.0.113.2/24")
    ip("address", "add", "203.0.113.1/24", "dev", "to-outside")
    network, switch = await agent(tmp_path)
    network.hosts = lambda: [host(network, "web1")]
    await switch.create(Call(input=SwitchCreate(name="quiet", kind=SwitchKind.ISOLATED)))
    await network.sync()
    nat, quiet = await get(switch), await get(switch, "quiet")
    machine("guest", bridge=nat.bridge, mac=MAC)
    machine("hermit", bridge=quiet.bridge, address="10.1.1.2/24")
    mac = Path(f"/sys/class/net/{quiet.bridge}/address").read_text().strip()
    ip("-n", "hermit", "route", "add", "203.0.113.1", "dev", "eth0")
    ip("-n", "hermit", "neighbour", "add", "203.0.113.1", "lladdr", mac, "dev", "eth0")
    ip("route", "add", "10.1.1.0/24", "dev", quiet.bridge)
    api = serve("", 8443)
    guest = serve("guest", 22)
    try:
        address = dhcp("guest", tmp_path)
        inside("guest", "busybox", "ping", "-c", "1", nat.gateway)
        assert ask("outside", "203.0.113.1", 8443) == "sees 203.0.113.2"
        assert "refused" in ask("guest", nat.gateway, 8443)
        assert "refused" in ask("guest", "203.0.113.1", 8443), "by no address of the host"
        assert "sees" not in ask("hermit", "203.0.113.1", 8443, timeout=1)
        assert ask("", address, 22) == f"guest sees {nat.gateway}", "the host reaches its guests"
    finally:
        api.kill()
        guest.kill()
    await network.remove()


@own_network.own_network
async def test_dnsmasq_runs_while_there_is_somebody_to_serve(tmp_path: Path) -> None:
    network, switch = await agent(tmp_path)
    await network.sync()
    nat = await get(switch)
    assert (nat.up, nat.why) == (True, "")
    assert inside("", "ss", "-lnuH", "src", nat.gateway) == ""
    network.hosts = lambda: [host(network, "web1")]
    await network.refresh()
    assert ":53" in inside("", "ss", "-lnuH", "src", nat.gateway)
    network.hosts = list
    await network.refresh()
    assert inside("", "ss", "-lnuH", "src", nat.gateway) == ""
    await network.remove()


@own_network.own_network
async def test_a_stranger_on_the_switch_gets_an_address_too(tmp_path: Path) -> None:
    network, switch = await agent(tmp_path)
    network.hosts = lambda: [host(network, "web1")]
    await network.sync()
    nat = await get(switch)
    machine("stranger", bridge=nat.bridge, mac="52:54:00:99:99:99")
    address = dhcp("stranger", tmp_path)
    assert int(address.split(".")[-1]) >= 205
    leases = (await get(switch)).leases
    assert (address, "") in [(lease.ip, lease.vm) for lease in leases]
    await network.remove()


@own_network.own_network
async def test_switches_are_isolated_from_each_other(tmp_path: Path) -> None:
    network, switch = await agent(tmp_path)
    await network.sync()
    await switch.create(Call(input=SwitchCreate(name="lab", kind=SwitchKind.NAT)))
    network.hosts = lambda: [
        host(network, "a", "52:54:00:00:00:0a"),
        host(network, "a2", "52:54:00:00:00:0c"),
        host(network, "b", "52:54:00:00:00:0b", "lab"),
    ]
    await switch.create(Call(input=SwitchCreate(name="quiet", kind=SwitchKind.ISOLATED)))
    nat, lab, quiet = await get(switch), await get(switch, "lab"), await get(switch, "quiet")
    assert nat.up and lab.up and quiet.up
    assert nat.subnet != lab.subnet
    machine("a", bridge=nat.bridge, mac="52:54:00:00:00:0a")
    machine("b", bridge=lab.bridge, mac="52:54:00:00:00:0b")
    a, b = dhcp("a", tmp_path), dhcp("b", tmp_path)
    server = serve("a", 80)
    try:
        assert ask("", a, 80).startswith("a sees"), "the host reaches its guests"
        assert "sees" not in ask("b", a, 80, timeout=1)
        machine("a2", bridge=nat.bridge, mac="52:54:00:00:00:0c")
        dhcp("a2", tmp_path)
        assert ask("a2", a, 80).startswith("a sees"), "guests of one switch reach each other"
    finally:
        server.kill()
    assert a.rsplit(".", 1)[0] != b.rsplit(".", 1)[0]
    assert ip("-br", "address", "show", "dev", quiet.bridge).split()[2:] == []
    await network.remove()


@own_network.own_network
async def test_a_port_is_a_tap_that_lives_as_long_as_its_holder(tmp_path: Path) -> None:
    network, switch = await agent(tmp_path)
    port = await network.open_port("vm-1", "nic0", switch="nat", mac=MAC, ip="", hostname="web1")
    bridge = (await get(switch)).bridge
    assert hostnet.is_bridge(bridge), "opening a port brought the switch up"
    found = (await link.links())[port.name]
    assert (found.master, found.up, found.kind) == (bridge, True, "tun")
    assert "web1/nic0" in (await get(switch)).ports
    with pytest.raises(Problem) as error:
        await network.open_port("vm-1", "nic0", switch="nat", mac=MAC, ip="")
    assert error.value.code is Code.IN_USE
    with pytest.raises(Problem) as error:
        await network.open_port("vm-1", "nic1", switch="nope", mac=MAC, ip="")
    assert error.value.code is Code.NOT_FOUND
    with pytest.raises(Problem) as error:
        await switch.delete(Call(input=None, path={"switch": "nat"}))
    assert error.value.code is Code.IN_USE
    before = Path(f"/sys/class/net/{bridge}/address").read_text()
    os.close(port.fd)
    assert not hostnet.exists(port.name)
    assert Path(f"/sys/class/net/{bridge}/address").read_text() == before
    await network.close_port("vm-1", "nic0")
    await switch.delete(Call(input=None, path={"switch": "nat"}))
    assert not hostnet.exists(bridge)
    assert not (tmp_path / "run" / "network" / bridge).exists()
    assert inside("", "nft", "list", "ruleset") == ""
    await network.close()


@own_network.own_network
async def test_a_restarted_agent_adopts_what_runs_and_a_dead_dnsmasq_comes_back(tmp_path: Path) -> None:
    network, switch = await agent(tmp_path)
    network.hosts = lambda: [host(network, "old", "52:54:00:00:00:0a")]
    await network.sync()
    bridge = (await get(switch)).bridge
    first = pid_of(tmp_path, bridge)
    await network.close()

    network, switch = await agent(tmp_path)
    network.hosts = lambda: [host(network, "old", "52:54:00:00:00:0a")]
    await network.sync()
    assert pid_of(tmp_path, bridge) == first
    network.hosts = lambda: [host(network, "new")]
    network.events.publish("vm.changed", "vm-new")
    names = tmp_path / "run" / "network" / bridge / "names"
    while "new.internal" not in names.read_text():
        await asyncio.sleep(0.01)
    assert pid_of(tmp_path, bridge) == first, "a new VM does not restart it"

    os.kill(first, signal.SIGKILL)
    while not (await get(switch)).why:
        await asyncio.sleep(0.01)
    while (await get(switch)).why:
        await asyncio.sleep(0.01)
    second = pid_of(tmp_path, bridge)
    assert second != first
    machine("guest", bridge=bridge, mac=MAC)
    assert dhcp("guest", tmp_path) == host(network, "new").ip
    await network.remove()
    assert process.identify(second) is None


@own_network.own_network
async def test_flushed_rules_and_deleted_bridges_are_made_again(tmp_path: Path) -> None:
    network, switch = await agent(tmp_path)
    await network.sync()
    before = inside("", "nft", "list", "ruleset")
    bridge = (await get(switch)).bridge
    inside("", "nft", "add", "table", "inet", "somebody")
    inside(
        "", "nft", "delete", "table", "inet", "thimble-" + network._switches.owner.removeprefix("thimble:")
    )
    ip("link", "delete", bridge)
    assert not (await get(switch)).up
    await network.sync()
    assert before.strip() in inside("", "nft", "list", "ruleset")
    assert "somebody" in inside("", "nft", "list", "tables")
    assert (await get(switch)).up
    await network.remove()
    assert "somebody" in inside("", "nft", "list", "tables")


@own_network.own_network
async def test_where_programs_are_missing_the_rest_works(tmp_path: Path) -> None:
    network, switch = await agent(tmp_path, dnsmasq="no-dnsmasq", nft="no-nft")
    await network.sync()
    nat = await get(switch)
    assert not nat.up
    assert "install nftables" in nat.why
    port = await network.open_port("vm-1", "nic0", switch="nat", mac=MAC, ip="")
    os.close(port.fd)
    without = await agent(tmp_path / "other", dnsmasq="no-dnsmasq")
    without[0].hosts = lambda: [host(without[0], "web1")]
    await without[0].sync()
    assert "install dnsmasq-base" in (await get(without[1])).why
    await network.remove()
    await without[0].remove()


@own_network.own_network
async def test_existing_bridges_are_joined_and_left_alone(tmp_path: Path) -> None:
    ip("link", "add", "uplink", "type", "bridge")
    ip("link", "add", "br7", "type", "bridge")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "boot.json").write_text(
        '{"state": {"kind": "ram"}, "uplink": {"bridge": "uplink", "nic": "eth0"}, "warnings": []}'
    )
    network, switch = await agent(tmp_path)
    await network.sync()
    uplink = await get(switch, "uplink")
    assert (uplink.bridge, uplink.uplink, uplink.kind, uplink.up) == ("uplink", "eth0", "bridged", True)
    made = await switch.create(Call(input=SwitchCreate(name="seven", kind=SwitchKind.BRIDGED, uplink="br7")))
    assert isinstance(made, Switch)
    port = await network.open_port("vm-1", "nic0", switch="seven", mac=MAC, ip="")
    assert (await link.links())[port.name].master == "br7"
    os.close(port.fd)
    await network.close_port("vm-1", "nic0")
    await switch.delete(Call(input=None, path={"switch": "seven"}))
    with pytest.raises(Problem):
        await switch.delete(Call(input=None, path={"switch": "uplink"}))
    await network.remove()
    assert hostnet.is_bridge("br7") and hostnet.is_bridge("uplink")


@own_network.own_network
async def test_a_free_nic_becomes_an_uplink_and_one_in_use_does_not(tmp_path: Path) -> None:
    machine("outside", address="203.0.113.2/24")
    machine("lan", address="198.51.100.2/24")
    ip("address", "add", "198.51.100.1/24", "dev", "to-lan")
    network, switch = await agent(tmp_path)
    await network.sync()
    create = SwitchCreate(name="wire", kind=SwitchKind.BRIDGED, uplink="to-lan")
    with pytest.raises(Problem) as error:
        await switch.create(Call(input=create))
    assert "cut off" in error.value.reasons[0].message
    create = SwitchCreate(name="wire", kind=SwitchKind.BRIDGED, uplink="to-outside")
    made = await switch.create(Call(input=create))
    assert isinstance(made, Switch)
    machine("guest", bridge=made.bridge, mac=MAC, address="203.0.113.9/24")
    server = serve("outside", 80)
    try:
        assert ask("guest", "203.0.113.2", 80) == "outside sees 203.0.113.9"
    finally:
        server.kill()
    await network.remove()
    assert (await link.links())["to-outside"].master == ""


@own_network.own_network
async def test_dry_runs_change_nothing_and_stale_changes_are_refused(tmp_path: Path) -> None:
    network, switch = await agent(tmp_path)
    await network.sync()
    before = ip("-br", "address")
    request = SwitchCreate(name="lab", kind=SwitchKind.NAT, subnet="10.77.0.0/24")
    dry = await switch.create(Call(input=request, dry_run=True))
    assert dry.effects[0].what == "makes the switch lab with the subnet 10.77.0.0/24"  # type: ignore[union-attr]
    bad = SwitchCreate(name="nat", kind=SwitchKind.NAT, subnet="10.77.0.1/24")
    refused = await switch.create(Call(input=bad, dry_run=True))
    assert len(refused.blockers) == 2  # type: ignore[union-attr]
    assert ip("-br", "address") == before
    with pytest.raises(Problem) as error:
        await switch.change(Call(input=SwitchChange(forwards=()), path={"switch": "nat"}, if_match=9))
    assert error.value.code is Code.STALE
    with pytest.raises(Problem) as error:
        await get(switch, "nope")
    assert error.value.code is Code.NOT_FOUND
    await network.remove()


@own_network.own_network
async def test_dnsmasq_is_not_root_and_still_learns_of_new_vms(tmp_path: Path) -> None:
    directory = Path("/run/netns/agent")  # in RAM of the test's own, and open to all as /run is
    network, switch = await agent(directory)
    network.hosts = lambda: [host(network, "soon", "52:54:00:00:00:0a")]
    await network.sync()
    bridge = (await get(switch)).bridge
    pid = pid_of(directory, bridge)
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Uid:\t0\t" not in status
    network.hosts = lambda: [host(network, "late")]
    await network.refresh()
    assert pid_of(directory, bridge) == pid
    machine("guest", bridge=bridge, mac=MAC)
    assert dhcp("guest", tmp_path) == host(network, "late").ip
    while not (await get(switch)).leases:
        await asyncio.sleep(0.01)
    await network.remove()


@own_network.own_network
async def test_a_subnet_that_the_host_has_elsewhere_meanwhile_is_given_up(tmp_path: Path) -> None:
    network, switch = await agent(tmp_path)
    await network.sync()
    before = await get(switch)
    machine("lan")
    ip("address", "add", f"{before.gateway}/24", "dev", "to-lan")
    await network.sync()
    after = await get(switch)
    assert after.up
    assert after.subnet != before.subnet, "nobody used it: another one was chosen"

    network.hosts = lambda: [host(network, "web1")]
    ip("address", "add", f"{after.gateway}/24", "dev", "to-lan")
    await network.sync()
    down = await get(switch)
    assert (down.subnet, down.up) == (after.subnet, False)
    assert "by to-lan" in down.why
    assert network.warnings() == (f"switch nat: {down.why}",)
    assert after.gateway not in ip("-br", "address", "show", "dev", down.bridge)
    ip("address", "delete", f"{after.gateway}/24", "dev", "to-lan")
    await network.sync()
    assert (await get(switch)).up
    await network.remove()


@own_network.own_network
async def test_a_polite_agent_takes_its_things_along_unless_vms_run_on(tmp_path: Path) -> None:
    network, switch = await agent(tmp_path)
    port = await network.open_port("vm-1", "nic0", switch="nat", mac=MAC, ip="")
    await network.close(tidy=True)
    assert "tb-" in ip("-br", "link")
    os.close(port.fd)
    network, switch = await agent(tmp_path)
    await network.sync()
    await network.close(tidy=True)
    assert "tb-" not in ip("-br", "link")
    assert inside("", "nft", "list", "ruleset") == ""
