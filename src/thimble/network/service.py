"""The seam of the network: `Network`, for VMs and for `app`. `switches` knows what is wanted, `reconcile`
makes it so.

A round of that (`rounds`) is run after the agent is ready, whenever switches or VMs change, and for whoever
opens a port before that. Before, only records are read: nothing here is started or looked at on the way to
ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from thimble.contract.common import Event
from thimble.contract.network import SwitchKind
from thimble.contract.vm import NicSpec
from thimble.core.lazy import Lazy
from thimble.core.problem import Code, Problem, Reason
from thimble.network import subnet
from thimble.network.ports import Ports
from thimble.network.records import Port, PortUse, SwitchRecord
from thimble.network.rounds import Rounds
from thimble.network.switches import Switches
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.sys import hostnet

if TYPE_CHECKING:
    from thimble.network.reconcile import Reconciler
    from thimble.network.rules import Facts
    from thimble.network.verbs import SwitchService


#: The state directory in the image, where the packet rules are ours alone.
IMAGE = "/var/lib/thimble"


def _no_hosts() -> list[PortUse]:
    return []


class Network:
    """`root`: the state directory; `run`: for dnsmasq's files, and where PID 1 left `boot.json`."""

    def __init__(
        self,
        root: Path,
        run: Path,
        *,
        events: Events,
        hosts: Callable[[], list[PortUse]] = _no_hosts,
        domain: str = "internal",
        dnsmasq: str = "dnsmasq",
        nft: str = "nft",
    ) -> None:
        self.events = events
        #: Every NIC of every VM, from the VM service.
        self.hosts = hosts
        #: Addresses with prefix this host has for a while on switches without one, by switch.
        self.assigned: dict[str, str] = {}
        #: Held by whoever changes switches, from the decision to its end.
        self.turn = asyncio.Lock()
        self._switches = Switches(root, run)
        self._run, self._domain = run, domain
        self._table = "thimble" if str(root) == IMAGE else self._switches.owner.replace(":", "-")
        self._programs = {"dnsmasq": dnsmasq, "nft": nft}
        self._reconciler = Lazy(self._make_reconciler)
        self._background = Background()
        self._rounds = Rounds("network", self._round, self._background)
        self._synced = False
        self._reported: dict[str, str] = {}  # the `why` of each switch as others know it
        self._ports = Ports()

    async def open(self) -> None:
        """Read the records; make the first ones."""
        await self._switches.open()
        self.events.listen(self._heard)

    async def close(self, *, tidy: bool = False) -> None:
        """Stop watching; bridges, rules and dnsmasqs stay for the VMs that run on.

        With `tidy`, as is polite on somebody else's host, they go when no port is in use.
        """
        await self._background.close()
        if (made := self._reconciler.made) is None:
            return
        if tidy and not self._in_use():
            await self.remove()
        await made.dhcp.close()

    async def remove(self) -> None:
        """Take away everything that was made here: for tests and for leaving a host clean."""
        await self._reconciler.get().remove()
        self._synced = False

    def services(self) -> dict[str, Lazy[SwitchService]]:
        """What the API binds verbs to."""

        def switch() -> SwitchService:
            from thimble.network.verbs import SwitchService

            return SwitchService(self, self._switches)

        return {"switch": Lazy(switch)}

    # ── for VMs ──────────────────────────────────────────────────────────────────────────────────

    def check_nic(self, spec: NicSpec, path: str, *, vm: str = "") -> list[Reason]:
        """Why this NIC cannot be had; `vm`: the VM whose own use of the MAC does not count."""
        from thimble.network import rules

        found = []
        if self._switches.records.find(spec.switch) is None:
            message = f"there is no switch {spec.switch!r}"
            found.append(Reason(message=message, code=Code.NOT_FOUND, path=f"{path}.switch"))
        if spec.mac is not None:
            found += rules.mac_reasons(spec.mac, tuple(self.hosts()), vm, f"{path}.mac")
        return found

    def address_for(self, switch: str, mac: str, taken: set[str]) -> str:
        """The static IPv4 address of a NIC on a NAT switch; empty on others. Raises `Problem`."""
        record = self._switches.records.get(switch).value
        net = subnet.parse(record.subnet) if record.kind is SwitchKind.NAT else None
        return subnet.address_for(net, mac, taken) if net else ""

    async def open_port(
        self, vm: str, nic: str, *, switch: str, mac: str, ip: str, hostname: str = ""
    ) -> Port:
        """A port for a NIC: a tap in the switch's bridge.

        Raises `Problem` NOT_FOUND, UNAVAILABLE (the switch is not up), IN_USE (the port is open already).
        """
        bridge = self._switches.records.get(switch).value.bridge
        use = PortUse(vm_id=vm, vm_name=hostname or vm, nic=nic, switch=switch, mac=mac, ip=ip)
        self._ports.uses[vm, nic] = use
        try:
            await self.refresh()
            if not hostnet.is_bridge(bridge):
                await self.sync()
            if not hostnet.is_bridge(bridge):
                raise Problem(Code.UNAVAILABLE, f"the switch {switch} is not up: {self.why(switch)}")
            return await self._ports.open(use, bridge)
        except Problem as error:
            if error.code is not Code.IN_USE:
                self._ports.uses.pop((vm, nic), None)
            raise

    async def close_port(self, vm: str, nic: str) -> None:
        """The NIC is gone; its tap went with its QEMU."""
        self._ports.uses.pop((vm, nic), None)
        await self.refresh()

    # ── what is wanted, and whether it is so ─────────────────────────────────────────────────────

    async def sync(self) -> None:
        """Make true what is wanted, looking at everything. Never fails for a single switch."""
        await self._rounds.done(thorough=True)

    async def refresh(self) -> None:
        """As `sync`, but only if something else is wanted than last time, or failed a while ago."""
        await self._rounds.done()

    async def _round(self, *, thorough: bool) -> None:
        await self._switches.adopt_uplink()  # at the start PID 1 may not have known which card it is
        await self._reconciler.get().bring(thorough=thorough)
        self._report()

    def _heard(self, event: Event) -> None:
        """VMs changed: see to their names, addresses and forwards soon."""
        if event.kind.startswith("vm.") and self._synced:
            self._rounds.ask()

    def _report(self) -> None:
        """Publish which switches are up now and were not, or no longer are."""
        first, self._synced = not self._synced, True
        now = {name: self.why(name) for name in self.switches()}
        for name, why in now.items():
            if first or self._reported.get(name, "") != why:
                self.events.publish("switch.changed", name, why=why)
        self._reported = now

    def why(self, switch: str) -> str:
        """Why a switch is not (wholly) up; empty if it is."""
        bridge = self._switches.records.get(switch).value.bridge
        made = self._reconciler.made
        if made is None or not self._synced:
            return "it is being set up"
        found = made.why.get(switch) or made.dhcp.why.get(bridge, "")
        if not found and not hostnet.is_bridge(bridge):
            found = f"the bridge {bridge} does not exist"
        return found

    def warnings(self) -> tuple[str, ...]:
        """What an administrator should know: records not used, switches that are not up."""
        broken = [f"{path}: not used, {why}" for path, why in self._switches.records.broken.items()]
        if not self._synced:
            return tuple(broken)
        down = [f"switch {name}: {why}" for name in self.switches() if (why := self.why(name))]
        return (*broken, *down)

    def switches(self) -> dict[str, SwitchRecord]:
        """By name; `uplink` is what the kernel calls the card now, or its MAC while it is not there."""
        return self._switches.all()

    def card_uses(self) -> dict[str, str]:
        """MAC → what the network card is for."""
        macs = {name: mac for mac, name in hostnet.macs().items()}
        return {
            macs[record.uplink]: "management" if record.adopted else f"switch {name}"
            for name, record in self.switches().items()
            if record.uplink in macs
        }

    def leases(self, bridge: str) -> list[tuple[str, str, str]]:
        """(mac, address, name) of all that asked for an address and got one."""
        made = self._reconciler.made
        return made.dhcp.leases(bridge) if made else []

    def all_hosts(self) -> tuple[PortUse, ...]:
        """All NICs of VMs, and the open ports whose VMs are not (or no longer) among them."""
        found = {(host.vm_id, host.nic): host for host in self.hosts()}
        return tuple({**self._ports.uses, **found}.values())

    async def facts(self) -> Facts:
        """For the checks of a new switch. Raises `Problem`."""
        return await self._switches.facts(self.all_hosts())

    def free_subnet(self) -> subnet.Subnet:
        """Raises `Problem` IN_USE when there is none."""
        return self._switches.free_subnet()

    def _make_reconciler(self) -> Reconciler:
        from thimble.network.reconcile import Reconciler

        return Reconciler(
            self._switches,
            hosts=self.all_hosts,
            assigned=self.assigned,
            table=self._table,
            run=self._run,
            domain=self._domain,
            **self._programs,
        )

    def _in_use(self) -> bool:
        own = [record for record in self.switches().values() if not record.adopted]
        return any(set(hostnet.ports(record.bridge)) - {record.uplink} for record in own)
