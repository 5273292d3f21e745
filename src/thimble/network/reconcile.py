"""Brings the kernel to what is wanted: looks, lets `plan` decide, acts. The only place that acts.

A switch that cannot be brought up wholly says why in `why`; the others go on. Imported after the agent is
ready, or by the first port that is opened.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from thimble.contract.network import SwitchKind
from thimble.core.problem import Problem
from thimble.network import plan, render, rules, subnet
from thimble.network.dhcp import Dhcp
from thimble.sys import command, hostnet, link

if TYPE_CHECKING:
    from thimble.network.service import Network

#: Seconds after which what failed is tried again when there is an occasion.
_RETRY = 30.0


class Reconciler:
    """For one `network`: its records and VMs are what is wanted."""

    def __init__(
        self, network: Network, *, owner: str, table: str, run: Path, domain: str, dnsmasq: str, nft: str
    ) -> None:
        self.dhcp = Dhcp(run / "network", program=dnsmasq)
        self.why: dict[str, str] = {}
        self._network = network
        self._nft = nft
        self._settings = plan.Settings(
            owner=owner, table=table, run=str(run / "network"), domain=domain, account=account(run)
        )
        self._lock = asyncio.Lock()
        self._conflicts: dict[str, str] = {}
        self._done: plan.Wanted | None = None  # what the last run made true
        self._tried = 0.0

    async def sync(self) -> None:
        """Make true what is wanted, looking at everything. Never fails for a single switch."""
        async with self._lock:
            await self._bring()

    async def refresh(self) -> None:
        """As `sync`, but only if something else is wanted than last time, or failed a while ago."""
        async with self._lock:
            again = bool(self.why) and asyncio.get_running_loop().time() - self._tried > _RETRY
            if again or self._wanted() != self._done:
                await self._bring()

    async def remove(self) -> None:
        """Take away everything that was made."""
        async with self._lock:
            self.dhcp.adopt()
            nothing = plan.Wanted(owner=self._settings.owner)
            await self._carry_out(plan.plan(nothing, await self._actual(nothing)))
            self._done = None

    async def remaining(self) -> tuple[plan.Effect, ...]:
        """What would be done now; nothing after a `sync` that succeeded."""
        wanted = self._wanted()
        return plan.plan(wanted, await self._actual(wanted))

    def _wanted(self) -> plan.Wanted:
        return plan.wanted(
            self._network.switches(),
            self._network.all_hosts(),
            self._settings,
            frozenset(self._conflicts),
            self._network.lent,
        )

    async def _bring(self) -> None:
        self._tried = asyncio.get_running_loop().time()
        self.dhcp.adopt()
        self._conflicts = self._find_conflicts()
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

    def _find_conflicts(self) -> dict[str, str]:
        """NAT switches whose subnet the host reaches elsewhere meanwhile, and where that is.

        One that we chose and nobody uses gets another subnet instead.
        """
        routes = [(name, subnet.Subnet(base, prefix)) for name, base, prefix in hostnet.routes()]
        found = {}
        for name, record in self._network.switches().items():
            other = rules.conflict(record.subnet, record.bridge, routes)
            if other and not self._network.move(name):
                found[name] = (
                    f"the host reaches {record.subnet} by {other}: give one of the two another subnet"
                )
        return found

    async def _actual(self, wanted: plan.Wanted) -> plan.Actual:
        return plan.Actual(
            links=await link.links(),
            rules=await self._standing_rules(),
            sysctls={key: hostnet.sysctl(key) for key, _ in wanted.sysctls},
            dhcp=self.dhcp.told(),
        )

    async def _standing_rules(self) -> str:
        argv = [self._nft, "list", "table", "inet", self._settings.table]
        try:
            result = await command.run(argv, check=False)
        except Problem:
            return ""
        return render.rules_digest(result.stdout.decode(errors="replace"))

    async def _carry_out(self, effects: tuple[plan.Effect, ...]) -> None:
        """Links first and per switch, so that one that fails does not keep the others down."""
        lines: dict[str, list[str]] = {}
        for effect in effects:
            if isinstance(effect, plan.StopDhcp):
                await self.dhcp.stop(effect.bridge)
            elif isinstance(effect, plan.LinkEffect):
                lines.setdefault(effect.switch, []).extend(effect.lines())
        for switch, commands in lines.items():
            try:
                await link.batch(commands)
            except Problem as error:
                self.why[switch] = error.detail
        for effect in effects:
            if isinstance(effect, plan.StartDhcp) and effect.plan.switch in self.why:
                continue  # there is no bridge to serve
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
                await command.run([self._nft, "delete", "table", "inet", self._settings.table])
            case plan.StartDhcp():
                await self.dhcp.start(effect.plan)
            case plan.TellDhcp():
                self.dhcp.tell(effect.plan)

    def _blame(self, effect: plan.Effect, why: str) -> None:
        """Say at the switches concerned what does not work, and what to install if that is it."""
        match effect:
            case plan.StartDhcp() | plan.TellDhcp():
                names, what, package = [effect.plan.switch], "no DHCP and DNS", "dnsmasq-base"
            case _:
                switches = self._network.switches()
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
