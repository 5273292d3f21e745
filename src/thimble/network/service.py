"""The seam of the network: `Network` for VMs and for `app`. It knows the switches; `reconcile` makes them.

`sync` is run after the agent is ready, whenever switches or VMs change, and by whoever opens a port before
that. Before, only records are read: nothing here is started or looked at on the way to ready.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from thimble.contract.common import Event
from thimble.contract.network import Protocol, SwitchKind
from thimble.contract.vm import NicSpec
from thimble.core.lazy import Lazy
from thimble.core.problem import Code, Problem, Reason
from thimble.network import subnet
from thimble.network.records import Port, PortUse, SwitchRecord
from thimble.state.events import Events
from thimble.state.store import Collection, is_durable
from thimble.sys import hostnet, log

if TYPE_CHECKING:
    from thimble.network.reconcile import Reconciler
    from thimble.network.rules import Facts
    from thimble.network.verbs import SwitchService


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
        domain: str = "internal",
        dnsmasq: str = "dnsmasq",
        nft: str = "nft",
    ) -> None:
        self.events = events
        self._root = root
        self._run = run
        self._owner = f"thimble:{crc32(os.fsencode(root.absolute())):08x}"
        self._programs = {"dnsmasq": dnsmasq, "nft": nft}
        self._domain = domain
        self._records: Collection[SwitchRecord] = Collection(
            SwitchRecord, noun="switch", durable=is_durable(root)
        )
        self._worker: Reconciler | None = None
        self._synced = False
        self._told: dict[str, str] = {}  # the `why` of each switch as others know it
        self._ports: dict[tuple[str, str], PortUse] = {}
        self._later: asyncio.Task[None] | None = None
        #: Addresses with prefix this host has for a while on switches without one, by switch.
        self.lent: dict[str, str] = {}
        #: Every NIC of every VM; set by `app` from the VM service.
        self.hosts: Callable[[], list[PortUse]] = _no_hosts

    async def open(self) -> None:
        """Read the records; make the first ones."""
        root = self._root / "switches"
        first = not root.exists()
        self._records.add_root("", root)
        if first:
            self._first()
        self._adopt_uplink()
        self.events.listen(self._heard)

    async def close(self, *, tidy: bool = False) -> None:
        """Stop watching; bridges, rules and dnsmasqs stay for the VMs that run on.

        With `tidy`, as is polite on somebody else's host, they go when no port is in use.
        """
        if self._later is not None:
            self._later.cancel()
        if tidy and self._worker is not None and not self._in_use():
            await self.remove()
        if self._worker is not None:
            await self._worker.dhcp.close()

    async def remove(self) -> None:
        """Take away everything that was made here: for tests and for leaving a host clean."""
        await self._reconciler().remove()
        self._synced = False

    def services(self) -> dict[str, Lazy[SwitchService]]:
        """What the API binds verbs to."""

        def switch() -> SwitchService:
            from thimble.network.verbs import SwitchService

            return SwitchService(self, self._records)

        return {"switch": Lazy(switch)}

    def warnings(self) -> tuple[str, ...]:
        """What an administrator should know: records not used, switches that are not up."""
        broken = [f"{path}: not used, {why}" for path, why in self._records.broken.items()]
        if not self._synced:
            return tuple(broken)
        down = [f"switch {name}: {why}" for name in self.switches() if (why := self.why(name))]
        return (*broken, *down)

    def check_nic(self, spec: NicSpec, path: str, *, vm: str = "") -> list[Reason]:
        """Why this NIC cannot be had; `vm`: the VM whose own use of the MAC does not count."""
        from thimble.network import rules

        found = []
        if self._records.find(spec.switch) is None:
            message = f"there is no switch {spec.switch!r}"
            found.append(Reason(message=message, code=Code.NOT_FOUND, path=f"{path}.switch"))
        if spec.mac is not None:
            found += rules.mac_reasons(spec.mac, tuple(self.hosts()), vm, f"{path}.mac")
        return found

    def address_for(self, switch: str, mac: str, taken: set[str]) -> str:
        """The static IPv4 address of a NIC on a NAT switch; empty on others. Raises `Problem`."""
        record = self._records.get(switch).value
        net = subnet.parse(record.subnet) if record.kind is SwitchKind.NAT else None
        return subnet.address_for(net, mac, taken) if net else ""

    async def open_port(
        self, vm: str, nic: str, *, switch: str, mac: str, ip: str, uid: int = 0, hostname: str = ""
    ) -> Port:
        """A port for a NIC: a tap in the switch's bridge. `uid` is not needed: QEMU gets the descriptor.

        Raises `Problem` NOT_FOUND, UNAVAILABLE (the switch is not up), IN_USE (the port is open already).
        """
        from thimble.sys import link

        del uid
        bridge = self._records.get(switch).value.bridge
        self._ports[vm, nic] = PortUse(
            vm_id=vm, vm_name=hostname or vm, nic=nic, switch=switch, mac=mac, ip=ip
        )
        try:
            await self.refresh()
            if not hostnet.is_bridge(bridge):
                await self.sync()
            if not hostnet.is_bridge(bridge):
                raise Problem(Code.UNAVAILABLE, f"the switch {switch} is not up: {self.why(switch)}")
            name = f"tp-{crc32(f'{vm}/{nic}'.encode()):08x}"
            descriptor = link.open_tap(name, bridge, f"fe{mac[2:]}")
        except Problem as error:
            if error.code is not Code.IN_USE:
                del self._ports[vm, nic]
            raise
        return Port(name=name, fd=descriptor, vhost_fd=link.open_vhost())

    async def close_port(self, vm: str, nic: str) -> None:
        """The NIC is gone; its tap went with its QEMU."""
        self._ports.pop((vm, nic), None)
        await self.refresh()

    async def sync(self) -> None:
        """Make true what is wanted, looking at everything. Never fails for a single switch."""
        self._adopt_uplink()  # at the start PID 1 may not have known which card it is
        await self._reconciler().sync()
        self._tell()

    async def refresh(self) -> None:
        """As `sync`, but only if something else is wanted than last time, or failed a while ago."""
        self._adopt_uplink()
        await self._reconciler().refresh()
        self._tell()

    def why(self, switch: str) -> str:
        """Why a switch is not (wholly) up; empty if it is."""
        bridge = self._records.get(switch).value.bridge
        if self._worker is None or not self._synced:
            return "it is being set up"
        found = self._worker.why.get(switch) or self._worker.dhcp.why.get(bridge, "")
        if not found and not hostnet.is_bridge(bridge):
            found = f"the bridge {bridge} does not exist"
        return found

    def switches(self) -> dict[str, SwitchRecord]:
        """By name; `uplink` is what the kernel calls the card now, or its MAC while it is not there."""
        found = {record.id: record.value for record in self._records.all()}
        if any(":" in record.uplink for record in found.values()):
            names = hostnet.macs()
            for id, record in found.items():
                if record.uplink in names:
                    found[id] = msgspec.structs.replace(record, uplink=names[record.uplink])
        return found

    def leases(self, bridge: str) -> list[tuple[str, str, str]]:
        """(mac, address, name) of all that asked for an address and got one."""
        return self._worker.dhcp.leases(bridge) if self._worker else []

    def all_hosts(self) -> tuple[PortUse, ...]:
        """All NICs of VMs, and the open ports whose VMs are not (or no longer) among them."""
        found = {(host.vm_id, host.nic): host for host in self.hosts()}
        return tuple({**self._ports, **found}.values())

    async def facts(self) -> Facts:
        """For the checks of a new switch. Raises `Problem`."""
        from thimble.network.rules import Facts
        from thimble.sys import link

        routes = hostnet.routes()
        return Facts(
            switches=self.switches(),
            links=await link.links(),
            routes=tuple(subnet.Subnet(base, prefix) for _, base, prefix in routes),
            default_route=tuple(name for name, _, prefix in routes if prefix == 0),
            hosts=self.all_hosts(),
            listening=frozenset((Protocol(name), port) for name, port in hostnet.listening()),
        )

    def free_subnet(self) -> subnet.Subnet:
        """Raises `Problem` IN_USE when there is none."""
        taken = [subnet.Subnet(base, prefix) for _, base, prefix in hostnet.routes() if prefix]
        taken += [net for record in self.switches().values() if (net := subnet.parse(record.subnet))]
        found = subnet.choose(taken, crc32(self._owner.encode()))
        if found is None:
            raise Problem(Code.IN_USE, "no 192.168.x.0/24 is free", hint="Name a subnet.")
        return found

    def move(self, switch: str) -> bool:
        """Give a switch another subnet, if its present one was chosen by us and no VM is on it."""
        record = self._records.get(switch).value
        if not record.chosen or any(host.switch == switch for host in self.all_hosts()):
            return False
        try:
            net = str(self.free_subnet())
            self._records.put(switch, msgspec.structs.replace(record, subnet=net))
        except Problem:
            return False
        return True

    def bridge_name(self, switch: str) -> str:
        """A kernel name for the bridge of a new switch, the same whenever it is asked for."""
        return f"tb-{crc32(f'{self._owner}/{switch}'.encode()):08x}"

    def _in_use(self) -> bool:
        own = [record for record in self.switches().values() if not record.adopted]
        return any(set(hostnet.ports(record.bridge)) - {record.uplink} for record in own)

    def _first(self) -> None:
        try:
            net = str(self.free_subnet())
        except Problem:
            return
        record = SwitchRecord(kind=SwitchKind.NAT, bridge=self.bridge_name("nat"), subnet=net, chosen=True)
        self._records.put("nat", record, expect=0)

    def _adopt_uplink(self) -> None:
        """Take the bridge that PID 1 made over the first NIC as the switch `uplink`.

        At the start PID 1 may not know yet which NIC: then the one remembered stands, and nothing is written.
        """
        try:
            boot = msgspec.json.decode((self._run / "boot.json").read_bytes(), type=_Boot)
        except (OSError, ValueError):
            return
        if boot.uplink is None or not boot.uplink.bridge:
            return
        found = self._records.find("uplink")
        nic = boot.uplink.nic or (found.value.uplink if found else "")
        record = SwitchRecord(kind=SwitchKind.BRIDGED, bridge=boot.uplink.bridge, uplink=nic, adopted=True)
        if found is None or (found.value.adopted and found.value != record):
            try:
                self._records.put("uplink", record)
            except Problem as problem:  # a full disk: the host is to be reachable all the same
                log.say(f"the switch uplink: {problem.detail}")

    def _heard(self, event: Event) -> None:
        """VMs changed: see to their names, addresses and forwards soon."""
        if not event.kind.startswith("vm.") or not self._synced:
            return
        if self._later is None or self._later.done():
            self._later = asyncio.get_running_loop().create_task(self.refresh())

    def _reconciler(self) -> Reconciler:
        if self._worker is None:
            from thimble.network.reconcile import Reconciler

            image = str(self._root) == "/var/lib/thimble"
            self._worker = Reconciler(
                self,
                owner=self._owner,
                table="thimble" if image else self._owner.replace(":", "-"),
                run=self._run,
                domain=self._domain,
                **self._programs,
            )
        return self._worker

    def _tell(self) -> None:
        first, self._synced = not self._synced, True
        now = {name: self.why(name) for name in self.switches()}
        for name, why in now.items():
            if first or self._told.get(name, "") != why:
                self.events.publish("switch.changed", name, why=why)
        self._told = now


class _Uplink(msgspec.Struct, frozen=True):
    bridge: str = ""
    nic: str = ""


class _Boot(msgspec.Struct, frozen=True):
    uplink: _Uplink | None = None
