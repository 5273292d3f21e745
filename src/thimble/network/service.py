"""The seam of the network: `Network` for VMs and for `app`. It alone changes links, rules and dnsmasqs.

`sync` reads what is, asks `plan` for what is missing, does that; a switch that cannot be brought up says why
and the others go on. It is run after the agent is ready, whenever switches or VMs change, and by whoever
opens a port before that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import msgspec

from thimble.contract.common import Event
from thimble.contract.network import Protocol, SwitchKind
from thimble.contract.vm import NicSpec
from thimble.core.problem import Code, Problem, Reason
from thimble.network import plan, render, rules, subnet
from thimble.network.dhcp import Dhcp
from thimble.network.records import Port, PortUse, SwitchRecord
from thimble.state.events import Events
from thimble.state.store import Collection, is_durable
from thimble.sys import command, hostnet, link

#: Seconds after which what failed is tried again when there is an occasion.
_RETRY = 30.0


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
        self._nft = nft
        instance = f"{crc32(os.fsencode(root.absolute())):08x}"
        image = str(root) == "/var/lib/thimble"
        self._table = "thimble" if image else f"thimble-{instance}"
        self._owner = f"thimble:{instance}"
        self._domain = domain
        self._records: Collection[SwitchRecord] = Collection(
            SwitchRecord, noun="switch", durable=is_durable(root.parent if not root.exists() else root)
        )
        self._dhcp = Dhcp(run / "network", program=dnsmasq)
        self._lock = asyncio.Lock()
        self._synced = False
        self._done: plan.Wanted | None = None  # what the last complete sync made true
        self._why: dict[str, str] = {}
        self._conflicts: frozenset[str] = frozenset()
        self._tried = 0.0
        self._account: tuple[str, str] | None = None
        self._ports: dict[tuple[str, str], PortUse] = {}
        self._later: asyncio.Task[None] | None = None
        #: Every NIC of every VM; set by `app` from the VM service.
        self.hosts: Callable[[], list[PortUse]] = _no_hosts

    async def open(self) -> None:
        """Read the records; make the first ones. Starts nothing: `sync` does, after the agent is ready."""
        shelf = self._root / "switches"
        first = not shelf.exists()
        self._records.add_shelf("", shelf)
        if first:
            self._first()
        self._adopt_uplink()
        self.events.listen(self._heard)

    async def close(self) -> None:
        """Stop watching; bridges, rules and dnsmasqs stay for the VMs that run on."""
        if self._later is not None:
            self._later.cancel()
        await self._dhcp.close()

    async def remove(self) -> None:
        """Take away everything that was made here: for tests and for leaving a host clean."""
        async with self._lock:
            self._dhcp.adopt()
            nothing = plan.Wanted(owner=self._owner)
            await self._carry_out(plan.plan(nothing, await self._actual(nothing)))
            self._done, self._synced = None, False

    def services(self) -> dict[str, object]:
        """What the API binds verbs to."""
        from thimble.network.verbs import SwitchService

        return {"switch": SwitchService(self, self._records, self._dhcp)}

    def check_nic(self, spec: NicSpec, path: str, *, vm: str = "") -> list[Reason]:
        """Why this NIC cannot be had; `vm`: the VM whose own use of the MAC does not count."""
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
        del uid
        record = self._records.get(switch).value
        self._ports[vm, nic] = PortUse(
            vm_id=vm, vm_name=hostname or vm, nic=nic, switch=switch, mac=mac, ip=ip
        )
        await self.refresh()
        if not link.is_bridge(record.bridge):
            await self.sync()
        if not link.is_bridge(record.bridge):
            why = self._why.get(switch, f"the bridge {record.bridge} does not exist")
            raise Problem(Code.UNAVAILABLE, f"the switch {switch} is not up: {why}")
        name = f"tp-{crc32(f'{vm}/{nic}'.encode()):08x}"
        descriptor = link.open_tap(name, record.bridge, f"fe{mac[2:]}")
        return Port(name=name, fd=descriptor, vhost_fd=link.open_vhost())

    async def close_port(self, vm: str, nic: str) -> None:
        """The NIC is gone; its tap went with its QEMU."""
        self._ports.pop((vm, nic), None)
        await self.refresh()

    async def sync(self) -> None:
        """Make true what is wanted, looking at everything. Never fails for a single switch."""
        async with self._lock:
            await self._reconcile()

    async def refresh(self) -> None:
        """As `sync`, but only if something else is wanted than last time, or something failed then."""
        async with self._lock:
            again = bool(self._why) and asyncio.get_running_loop().time() - self._tried > _RETRY
            if not self._synced or again or self._wanted() != self._done:
                await self._reconcile()

    def why(self, switch: str) -> str:
        """Why a switch is not (wholly) up; empty if it is."""
        record = self._records.get(switch).value
        if not self._synced:
            return "it is being set up"
        if not link.is_bridge(record.bridge):
            return self._why.get(switch, f"the bridge {record.bridge} does not exist")
        return self._why.get(switch) or self._dhcp.why.get(record.bridge, "")

    def all_hosts(self) -> tuple[PortUse, ...]:
        """All NICs of VMs, and the open ports whose VMs are not (or no longer) among them."""
        found = {(host.vm_id, host.nic): host for host in self.hosts()}
        return tuple({**self._ports, **found}.values())

    async def facts(self) -> rules.Facts:
        """For the checks of a new switch. Raises `Problem`."""
        routes = hostnet.routes()
        return rules.Facts(
            switches={record.id: record.value for record in self._records.all()},
            links=await link.links(),
            routes=tuple(subnet.Subnet(base, prefix) for _, base, prefix in routes),
            default_route=tuple(name for name, _, prefix in routes if prefix == 0),
            hosts=self.all_hosts(),
            listening=frozenset((Protocol(name), port) for name, port in hostnet.listening()),
        )

    def free_subnet(self) -> subnet.Subnet:
        """Raises `Problem` IN_USE when there is none."""
        taken = [subnet.Subnet(base, prefix) for _, base, prefix in hostnet.routes() if prefix]
        taken += [net for record in self._records.all() if (net := subnet.parse(record.value.subnet))]
        found = subnet.choose(taken, crc32(self._owner.encode()))
        if found is None:
            raise Problem(Code.IN_USE, "no 192.168.x.0/24 is free", hint="Name a subnet.")
        return found

    def bridge_name(self, switch: str) -> str:
        """A kernel name for the bridge of a new switch, the same whenever it is asked for."""
        return f"tb-{crc32(f'{self._owner}/{switch}'.encode()):08x}"

    def _first(self) -> None:
        try:
            net = str(self.free_subnet())
        except Problem:
            return
        record = SwitchRecord(kind=SwitchKind.NAT, bridge=self.bridge_name("nat"), subnet=net, chosen=True)
        self._records.put("nat", record, expect=0)

    def _adopt_uplink(self) -> None:
        """Take the bridge that PID 1 made over the first NIC as the switch `uplink`."""
        try:
            boot = msgspec.json.decode((self._run / "boot.json").read_bytes(), type=_Boot)
        except (OSError, ValueError):
            return
        if boot.uplink is None or not boot.uplink.bridge:
            return
        record = SwitchRecord(
            kind=SwitchKind.BRIDGED, bridge=boot.uplink.bridge, uplink=boot.uplink.nic, adopted=True
        )
        found = self._records.find("uplink")
        if found is None or (found.value.adopted and found.value != record):
            self._records.put("uplink", record)

    def _heard(self, event: Event) -> None:
        """VMs changed: see to their names, addresses and forwards soon."""
        if not event.kind.startswith("vm.") or not self._synced:
            return
        if self._later is None or self._later.done():
            self._later = asyncio.get_running_loop().create_task(self.refresh())

    def _wanted(self) -> plan.Wanted:
        switches = {record.id: record.value for record in self._records.all()}
        if self._account is None:
            self._account = _account(self._run)
        return plan.wanted(
            switches,
            self.all_hosts(),
            plan.Settings(
                owner=self._owner,
                table=self._table,
                run=str(self._run / "network"),
                domain=self._domain,
                account=self._account,
            ),
            self._conflicts,
        )

    async def _reconcile(self) -> None:
        self._tried = asyncio.get_running_loop().time()
        self._dhcp.adopt()
        conflicts = self._find_conflicts()
        self._conflicts = frozenset(conflicts)
        wanted = self._wanted()
        before = {record.id: self._why.get(record.id) for record in self._records.all()}
        self._why = {}
        try:
            actual = await self._actual(wanted)
        except Problem as error:
            self._why = {bridge.switch: error.detail for bridge in wanted.bridges}
        else:
            await self._carry_out(plan.plan(wanted, actual))
        self._why.update(conflicts)
        self._done = wanted
        first, self._synced = not self._synced, True
        for record in self._records.all():
            if first or before.get(record.id) != self._why.get(record.id):
                self.events.publish("switch.changed", record.id, why=self._why.get(record.id, ""))

    def _find_conflicts(self) -> dict[str, str]:
        """NAT switches whose subnet the host reaches elsewhere meanwhile, and where that is.

        One that we chose and nobody uses gets another subnet instead.
        """
        routes = [(name, subnet.Subnet(base, prefix)) for name, base, prefix in hostnet.routes()]
        found = {}
        for record in self._records.all():
            other = rules.conflict(record.value.subnet, record.value.bridge, routes)
            if not other:
                continue
            used = any(host.switch == record.id for host in self.all_hosts())
            if record.value.chosen and not used:
                try:
                    net = str(self.free_subnet())
                    self._records.put(record.id, msgspec.structs.replace(record.value, subnet=net))
                    continue
                except Problem:
                    pass
            found[record.id] = (
                f"the host reaches {record.value.subnet} by {other}: give one of the two another subnet"
            )
        return found

    async def _actual(self, wanted: plan.Wanted) -> plan.Actual:
        return plan.Actual(
            links=await link.links(),
            rules=await self._standing_rules(),
            sysctls={key: hostnet.sysctl(key) for key, _ in wanted.sysctls},
            dhcp=self._dhcp.told(),
        )

    async def _standing_rules(self) -> str:
        try:
            result = await command.run([self._nft, "list", "table", "inet", self._table], check=False)
        except Problem:
            return ""
        return render.rules_digest(result.stdout.decode(errors="replace"))

    async def _carry_out(self, effects: tuple[plan.Effect, ...]) -> None:
        """Links first and per switch, so that one that fails does not keep the others down."""
        lines: dict[str, list[str]] = {}
        for effect in effects:
            if isinstance(effect, plan.StopDhcp):
                await self._dhcp.stop(effect.bridge)
            elif isinstance(effect, plan.LinkEffect):
                lines.setdefault(effect.switch, []).extend(effect.lines())
        for switch, commands in lines.items():
            try:
                await link.batch(commands)
            except Problem as error:
                self._why[switch] = error.detail
        for effect in effects:
            try:
                await self._act(effect)
            except (Problem, OSError) as error:
                self._blame(effect, error.detail if isinstance(error, Problem) else str(error))

    async def _act(self, effect: plan.Effect) -> None:
        match effect:
            case plan.SetSysctl():
                hostnet.set_sysctl(effect.key, effect.value)
            case plan.LoadRules():
                await command.run([self._nft, "-f", "-"], stdin=effect.text.encode())
            case plan.DropRules():
                await command.run([self._nft, "delete", "table", "inet", self._table])
            case plan.StartDhcp():
                await self._dhcp.start(effect.plan)
            case plan.TellDhcp():
                self._dhcp.tell(effect.plan)

    def _blame(self, effect: plan.Effect, why: str) -> None:
        """Say at the switches concerned what does not work, and what to install if that is it."""
        match effect:
            case plan.StartDhcp() | plan.TellDhcp():
                names, what, package = [effect.plan.switch], "no DHCP and DNS", "dnsmasq-base"
            case _:
                names = [r.id for r in self._records.all() if r.value.kind is not SwitchKind.BRIDGED]
                what, package = "no address translation and isolation", "nftables"
        if "is missing" in why:
            why += f"; install {package}"
        for name in names:
            self._why.setdefault(name, f"{what}: {why}")


class _Uplink(msgspec.Struct, frozen=True):
    bridge: str = ""
    nic: str = ""


class _Boot(msgspec.Struct, frozen=True):
    uplink: _Uplink | None = None


def _account(run: Path) -> tuple[str, str]:
    """Whom dnsmasq becomes: its own user or nobody; root where nobody else may enter `run`."""
    for directory in (run, *run.absolute().parents):
        try:
            if not directory.stat().st_mode & 1:
                return "root", "root"
        except OSError:
            continue
    users, groups = _names("/etc/passwd"), _names("/etc/group")
    user = next((name for name in ("dnsmasq", "nobody") if name in users), "root")
    group = next((name for name in ("nogroup", "nobody") if name in groups), "root")
    return user, group


def _names(path: str) -> set[str]:
    try:
        return {line.split(":")[0] for line in Path(path).read_text().splitlines()}
    except OSError:
        return set()
