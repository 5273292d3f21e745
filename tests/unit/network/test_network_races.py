"""Two who want the same of the network at once: really, in a network of the test's own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_network import inside, own_network

from thimble.contract.call import Call
from thimble.contract.network import SwitchCreate, SwitchKind
from thimble.core.problem import Code, Problem
from thimble.network import dhcp
from thimble.network.records import PortUse
from thimble.network.service import Network
from thimble.network.verbs import SwitchService
from thimble.state.events import Events
from thimble.sys import hostnet, process

MAC = "52:54:00:12:34:56"


async def agent(directory: Path) -> tuple[Network, SwitchService]:
    network = Network(directory / "state", directory / "run", events=Events(base=1, clock=time.time))
    await network.open()
    return network, network.services()["switch"].get()


def web(network: Network) -> list[PortUse]:
    ip = network.address_for("nat", MAC, set())
    return [PortUse(vm_id="vm-1", vm_name="web", nic="nic0", switch="nat", mac=MAC, ip=ip)]


def dnsmasqs() -> list[int]:
    """Those of this test's network."""
    return list(_of_network(Path("/proc/self/ns/net").readlink()))


def _of_network(mine: Path) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "ns/net").readlink() == mine and (path / "comm").read_text().strip() == "dnsmasq":
                yield int(path.name)
        except OSError:
            continue


@own_network
async def test_a_dnsmasq_that_is_started_again_and_a_sync_make_one_together(tmp_path: Path) -> None:
    network, switch = await agent(tmp_path)
    network.hosts = lambda: web(network)
    await network.sync()
    bridge = network.switches()["nat"].bridge
    first = int((tmp_path / f"run/network/{bridge}/pid").read_text())
    really = dhcp._end
    slow = asyncio.Event()

    async def slowly(who: process.Identity, timeout: float = 5.0) -> None:
        if who.pid == first:  # whoever starts it again is held up here
            slow.set()
            await asyncio.sleep(0.3)
        await really(who, timeout)

    dhcp._end = slowly  # in the child of this test alone
    os.kill(first, signal.SIGKILL)
    await slow.wait()
    await network.sync()
    async with asyncio.timeout(10):
        while network.why("nat") or len(dnsmasqs()) != 1:
            await asyncio.sleep(0.05)
    gateway = network.switches()["nat"].subnet.replace(".0/24", ".1")
    assert ":53" in inside("", "ss", "-lnuH", "src", gateway)
    (alive,) = dnsmasqs()
    assert int((tmp_path / f"run/network/{bridge}/pid").read_text()) == alive, "it is the one that is known"
    await network.remove()
    assert dnsmasqs() == []


@own_network
async def test_a_dnsmasq_nobody_wrote_down_is_ended_and_replaced(tmp_path: Path) -> None:
    network, _ = await agent(tmp_path)
    network.hosts = lambda: web(network)
    await network.sync()
    bridge = network.switches()["nat"].bridge
    await network.close()
    (before,) = dnsmasqs()
    (tmp_path / f"run/network/{bridge}/process.json").unlink()  # the agent was killed before it wrote that

    network, _ = await agent(tmp_path)
    network.hosts = lambda: web(network)
    await network.sync()
    assert network.why("nat") == ""
    (after,) = dnsmasqs()
    assert after != before
    await network.remove()


@own_network
async def test_of_two_switches_with_one_subnet_or_one_name_at_once_one_is_made(tmp_path: Path) -> None:
    network, switch = await agent(tmp_path)

    async def make(name: str, subnet: str) -> str:
        request = SwitchCreate(name=name, kind=SwitchKind.NAT, subnet=subnet)
        try:
            await switch.create(Call(input=request))
        except Problem as problem:
            return problem.code
        return ""

    same = await asyncio.gather(make("a", "10.77.0.0/24"), make("b", "10.77.0.0/16"))
    assert sorted(same) == ["", Code.IN_USE]
    named = await asyncio.gather(make("c", "10.78.0.0/24"), make("c", "10.79.0.0/24"))
    assert sorted(named) == ["", Code.EXISTS]
    chosen = await asyncio.gather(make("d", ""), make("e", ""))
    assert chosen == ["", ""]
    subnets = [record.subnet for record in network.switches().values()]
    assert len(set(subnets)) == len(subnets)
    await network.remove()


@own_network
async def test_who_gives_up_while_a_port_is_opened_leaves_no_tap(tmp_path: Path) -> None:
    network, _ = await agent(tmp_path)
    await network.sync()
    for _ in range(20):
        opening = asyncio.ensure_future(network.open_port("vm-1", "nic0", switch="nat", mac=MAC, ip=""))
        while not any(path.name.startswith("tp-") for path in Path("/sys/class/net").iterdir()):
            if opening.done():
                break
            await asyncio.sleep(0)
        if opening.cancel():
            with pytest.raises(asyncio.CancelledError):
                await opening
        else:
            port = opening.result()
            os.close(port.fd)
        async with asyncio.timeout(5):
            while hostnet.ports(network.switches()["nat"].bridge):
                await asyncio.sleep(0.01)
        await network.close_port("vm-1", "nic0")
    await network.remove()
