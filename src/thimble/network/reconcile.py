"""Brings the kernel to what is wanted: looks, lets `plan` decide, acts. The only place that acts.

A switch that cannot be brought up wholly says why in `why`; the others go on. Imported after the agent is
ready, or by the first port that is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from thimble.contract.network import SwitchKind
from thimble.core.problem import Problem
from thimble.network import effects as do
from thimble.network import plan, render, rules, subnet
from thimble.network.dhcp import Dhcp
from thimble.network.records import PortUse
from thimble.network.switches import Switches
from thimble.sys import command, hostnet, link
from thimble.sys.worker import Worker

#: Seconds after which what failed is tried again when there is an occasion.
_RETRY = 30.0


class Reconciler:
    """`hosts`: every NIC of a VM; `assigned`: addresses of this host on switches without one of their own."""

    def __init__(
        self,
        switches: Switches,
        *,
        hosts: Callable[[], tuple[PortUse, ...]],
        assigned: dict[str, str],
        table: str,
        run: Path,
        domain: str,
        dnsmasq: str,
        nft: str,
    ) -> None:
        self.dhcp = Dhcp(run / "network", program=dnsmasq)
        self.why: dict[str, str] = {}
        self._switches = switches
        self._hosts = hosts
        self._assigned = assigned
        self._nft = nft
        self._settings = plan.Settings(
            owner=switches.owner, table=table, run=str(run / "network"), domain=domain, account=account(run)
        )
        self._worker = Worker("network")
        self._lock = asyncio.Lock()
        self._adopted = False
        self._conflicts: dict[str, str] = {}
        self._done: plan.Wanted | None = None  # what the last run made true
        self._tried = 0.0

    async def bring(self, *, thorough: bool) -> None:
        """Make true what is wanted. Never fails for a single switch.

        Unless `thorough`, the host is looked at only if something else is wanted than last time, or failed a
        while ago.
        """
        async with self._lock:
            again = bool(self.why) and asyncio.get_running_loop().time() - self._tried > _RETRY
            if thorough or again or self._wanted() != self._done:
                await self._bring()

    async def remove(self) -> None:
        """Take away everything that was made."""
        async with self._lock:
            self._adopt()
            nothing = plan.Wanted(owner=self._settings.owner)
            await self._carry_out(plan.plan(nothing, await self._actual(nothing)))
            self._done = None

    async def remaining(self) -> tuple[do.Effect, ...]:
        """What would be done now; nothing after a run that succeeded."""
        wanted = self._wanted()
        return plan.plan(wanted, await self._actual(wanted))

    def _wanted(self) -> plan.Wanted:
        return plan.wanted(
            self._switches.all(), self._hosts(), self._settings, frozenset(self._conflicts), self._assigned
        )

    def _adopt(self) -> None:
        if not self._adopted:
            self.dhcp.adopt()
            self._adopted = True

    async def _bring(self) -> None:
        self._tried = asyncio.get_running_loop().time()
        self._adopt()
        self._conflicts = await self._find_conflicts()
        wanted = self._wanted()
        self.why = {}
        try:
            actual = await self._actual(wanted)
        except Problem as error:
            self.why = {bridge.switch: error.detail for bridge in wanted.bridges}
        else:
            await self._carry_out(plan.plan(wanted, actual))
        self.why.update(self._conflicts)
        self._done = wanted

    async def _find_conflicts(self) -> dict[str, str]:
        """NAT switches whose subnet the host reaches elsewhere meanwhile, and where that is.

        One that we chose and nobody uses gets another subnet instead.
        """
        routes = [(name, subnet.Subnet(base, prefix)) for name, base, prefix in hostnet.routes()]
        found = {}
        for name, record in self._switches.all().items():
            other = rules.conflict(record.subnet, record.bridge, routes)
            if other and not await self._switches.move(name, partial(self._has_vms, name)):
                found[name] = (
                    f"the host reaches {record.subnet} by {other}: give one of the two another subnet"
                )
        return found

    def _has_vms(self, switch: str) -> bool:
        return any(host.switch == switch for host in self._hosts())

    async def _actual(self, wanted: plan.Wanted) -> plan.Actual:
        return plan.Actual(
            links=await link.links(),
            rules=await self._standing_rules(),
            sysctls=await self._worker.run(lambda: {key: hostnet.sysctl(key) for key, _ in wanted.sysctls}),
            dhcp=self.dhcp.told(),
        )

    async def _standing_rules(self) -> str:
        argv = [self._nft, "list", "table", "inet", self._settings.table]
        try:
            result = await command.run(argv, check=False)
        except Problem:
            return ""
        return render.rules_digest(result.stdout.decode(errors="replace"))

    async def _carry_out(self, effects: tuple[do.Effect, ...]) -> None:
        """Links first and per switch, so that one that fails does not keep the others down."""
        lines: dict[str, list[str]] = {}
        for effect in effects:
            if isinstance(effect, do.StopDhcp):
                await self.dhcp.stop(effect.bridge)
            elif isinstance(effect, do.LinkEffect):
                lines.setdefault(effect.switch, []).extend(effect.lines())
        for switch, commands in lines.items():
            try:
                await link.batch(commands)
            except Problem as error:
                self.why[switch] = error.detail
        for effect in effects:
            if isinstance(effect, do.StartDhcp) and effect.plan.switch in self.why:
                continue  # there is no bridge to serve
            try:
                await self._act(effect)
            except (Problem, OSError) as error:
                self._blame(effect, error.detail if isinstance(error, Problem) else str(error))

    async def _act(self, effect: do.Effect) -> None:
        match effect:
            case do.SetSysctl():
                key, value = effect.key, effect.value
                await self._worker.run(lambda: hostnet.set_sysctl(key, value))
            case do.LoadRules():
                await command.run([self._nft, "-f", "-"], stdin=effect.text.encode())
            case do.DropRules():
                await command.run([self._nft, "delete", "table", "inet", self._settings.table])
            case do.StartDhcp():
                await self.dhcp.start(effect.plan)
            case do.TellDhcp():
                await self.dhcp.tell(effect.plan)

    def _blame(self, effect: do.Effect, why: str) -> None:
        """Say at the switches concerned what does not work, and what to install if that is it."""
        match effect:
            case do.StartDhcp() | do.TellDhcp():
                names, what, package = [effect.plan.switch], "no DHCP and DNS", "dnsmasq-base"
            case _:
                switches = self._switches.all()
                names = [name for name, r in switches.items() if r.kind is not SwitchKind.BRIDGED]
                what, package = "no address translation and isolation", "nftables"
        if "is missing" in why:
            why += f"; install {package}"
        for name in names:
            self.why.setdefault(name, f"{what}: {why}")


def account(run: Path) -> tuple[str, str]:
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
