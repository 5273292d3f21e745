"""The addresses of the host on its management network: static ones, a DHCP client, and the change between.

    apply ──► static ones set, DHCP client (re)started ──a new address is there──► the old ones go
                                                        └──never──► the old ones stay

Nothing is waited for: the kernel reports addresses (uplink.py passes them on).
"""

from __future__ import annotations

import os

from ..supervise import Supervised
from . import lease
from .ipparam import UplinkPlan
from .netaddr import is_link_local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..children import Children
    from ..loop import Loop, Timer

IP = "/usr/sbin/ip"
DHCPCD = "/usr/sbin/dhcpcd"
DHCPCD_CONF = "/run/thimble/dhcpcd.conf"
BATCH = "/run/thimble/addresses-{}.ip"
# Seconds without a DHCP answer before a warning; the client keeps trying.
SILENCE = 20.0
_DHCPCD_TEXT = """\
duid ll
clientid
hostname
persistent
nodelay
noarp
noalias
slaac hwaddr
option domain_name_servers, domain_name, domain_search, host_name, ntp_servers
option classless_static_routes, interface_mtu
option dhcp6_name_servers, dhcp6_domain_search, dhcp6_ntp_server, dhcp6_sntp_servers
require dhcp_server_identifier
script /dev/null
"""


class Addressing:
    """Owns the addresses of `interface`, by `plan`. `changed()` is called when something did."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        bridge: str,
        say: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._loop, self._children, self._say, self._changed = loop, children, say, changed
        self._bridge = bridge
        self._settle: Timer | None = None
        self._silence: Timer | None = None
        self._batches = 0
        # Earlier plans: the plan, its interface, the addresses it brought.
        self._old: list[tuple[UplinkPlan, str, dict[str, int]]] = []
        self._begun = self.settled = False  # settled: the plan's addresses are there, the old ones gone
        self.plan, self.interface, self.problem = UplinkPlan(), "", ""
        self.addresses: dict[str, int] = {}
        self._leased: list[str] = []  # by the DHCP server, though they may have been here before
        self.lease = lease.LeaseFacts()
        self.gateway = ""
        self.dhcpcd = Supervised("dhcpcd", loop, self._launch, say, children.last_output)

    def apply(self, plan: UplinkPlan) -> None:
        """Addresses by this plan from now on; the NIC is in the bridge."""
        interface = f"{self._bridge}.{plan.vlan}" if plan.vlan else self._bridge
        if self.interface:
            had = [item for _, was, items in self._old if was == self.interface for item in items]
            own = {item: prefix for item, prefix in self.addresses.items() if item not in had}
            self._old.append((self.plan, self.interface, own))
        if interface != self.interface:
            self.addresses = {}
        self.plan, self.interface, self.problem = plan, interface, ""
        self._begun = self.settled = False
        self.lease, self._leased = lease.LeaseFacts(), []
        self.gateway = static_gateway(plan)
        commands = setting(plan, self._bridge, interface)
        if commands:
            self._run(commands, self._configured)
        else:
            self._start_client()

    def on_address(self, address: str, prefix: int, *, gone: bool, usable: bool) -> None:
        """The kernel reports an address of `interface`."""
        before = dict(self.addresses)
        if gone:
            self.addresses.pop(address, None)
        elif usable:
            self.addresses[address] = prefix
        if self.addresses != before:
            self._forget_old()
            self._changed()
        if self._settle is None and self.plan.dhcp and not address.startswith("fe80:"):
            self._settle = self._loop.after(0.3, self._ask_client)

    def dns(self) -> list[str]:
        """Name servers: given statically, then learned."""
        given = [server for item in self.plan.static for server in item.dns]
        given += [server for server in self.plan.dns if server not in given]
        return given + [server for server in self.lease.dns if server not in given]

    def good(self) -> list[str]:
        """Addresses others can reach."""
        return [item for item in self.addresses if not is_link_local(item)]

    def _configured(self, status: int) -> None:
        if status:
            words = ", ".join(f"{static.address}/{static.prefix}" for static in self.plan.static)
            self._say(f"not all network settings could be applied ({words or self.interface})")
        self._start_client()

    def _start_client(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
        if self.plan.dhcp:
            with open(DHCPCD_CONF, "w") as file:
                file.write(_DHCPCD_TEXT)
            self.dhcpcd.restart()
            self._silence = self._loop.after(SILENCE, self._silent)
        else:
            self.dhcpcd.stop()
        self._begun = True
        self._forget_old()
        if self.settled:
            self._changed()

    def _launch(self, on_exit: Callable[[int], None]) -> int:
        argv = [DHCPCD, "-B", "-q", *self._families(), "-f", DHCPCD_CONF, self.interface]
        return self._children.spawn(argv, on_exit)

    def _families(self) -> list[str]:
        """dhcpcd's option for one family; `--dumplease` needs the same option to find the client."""
        return [] if len(self.plan.dhcp) == 2 else [f"-{family}" for family in self.plan.dhcp]

    def _silent(self) -> None:
        if not self.good():
            where = ", ".join(self.addresses) or "no address"
            self.problem = f"no DHCP server answers on {self.interface}: the host has {where}"
        elif self.plan.static or self.settled:
            return
        else:
            self.problem = f"no DHCP server answers on {self.interface}: the host keeps {self.good()[0]}"
        self._say(f"warning: {self.problem}")
        self._changed()

    def _forget_old(self) -> None:
        """Removes the old addresses once a new one is there."""
        commands = self._leftovers()
        if not self._new_address_is_there(commands):
            return
        self.problem = ""
        if not self._begun:
            return
        self._old = []
        if commands:
            self._run(commands, lambda _status: self._settled())
        else:
            self.settled = True

    def _new_address_is_there(self, commands: list[str]) -> bool:
        """Is a new address there? An IPv4 address that DHCP shall replace needs another IPv4 one."""
        stay = [item for item in self.good() if not any(self._takes(command, item) for command in commands)]
        wanted = [static.address for static in self.plan.static]
        there = [item for item in self.good() if item in wanted] if wanted else stay
        had = [item for _, _, items in self._old for item in items if "." in item and not is_link_local(item)]
        waits = had and 4 in self.plan.dhcp and not any("." in item for item in stay)
        return bool(there) and not waits

    def _settled(self) -> None:
        self.settled = not self._old
        self._changed()

    def _leftovers(self) -> list[str]:
        """The commands that remove what earlier plans left and this one does not want."""
        found: list[str] = []
        for plan, was, addresses in self._old:
            commands = removal(plan, was, addresses, self.plan, self.interface)
            found += [command for command in commands if command not in found]
        return [item for item in found if not any(self._takes(item, leased) for leased in self._leased)]

    def _takes(self, command: str, address: str) -> bool:
        return command.startswith(f"address delete {address}/") and command.endswith(f"dev {self.interface}")

    def _run(self, commands: list[str], ended: Callable[[int], None]) -> None:
        self._batches += 1
        path = BATCH.format(self._batches)
        with open(path, "w") as file:
            file.write("\n".join([*commands, ""]))

        def done(status: int) -> None:
            os.unlink(path)
            ended(status)

        self._children.spawn([IP, "-force", "-batch", path], done)

    def _ask_client(self) -> None:
        self._settle = None
        lines: list[str] = []

        def ended(_: int) -> None:
            blocks = lease.parse_dump("\n".join(lines))
            self.lease = lease.facts(blocks)
            routers = [block["routers"].split()[0] for block in blocks if block.get("routers")]
            self.gateway = static_gateway(self.plan) or "".join(routers[:1])
            self._leased = [block["ip_address"] for block in blocks if block.get("ip_address")]
            self._forget_old()
            self._changed()

        self._children.spawn([DHCPCD, *self._families(), "--dumplease", self.interface], ended, collect=lines)


def static_gateway(plan: UplinkPlan) -> str:
    """The first gateway given statically."""
    return next((static.gateway for static in plan.static if static.gateway), "")


def setting(plan: UplinkPlan, bridge: str, interface: str) -> list[str]:
    """The commands for `ip -batch` before a DHCP client starts; often none. Pure."""
    commands = []
    if plan.vlan:
        commands.append(f"link add link {bridge} name {interface} type vlan id {plan.vlan}")
        commands.append(f"link set {interface} up")
    for static in plan.static:
        nodad = " nodad" if static.family == 6 else ""
        commands.append(f"address replace {static.address}/{static.prefix} dev {interface}{nodad}")
        if static.gateway:
            commands.append(f"route replace default via {static.gateway} dev {interface}")
    return commands


def removal(
    old: UplinkPlan, was: str, addresses: dict[str, int], new: UplinkPlan, interface: str
) -> list[str]:
    """The commands that remove what the old plan left and the new one does not want. Pure."""
    if old.vlan and was != interface:
        return [f"link delete {was}"]
    kept = [(static.address, static.prefix) for static in new.static] if was == interface else []
    routes = [static.gateway for static in new.static] if was == interface else []
    automatic = [family for family in new.dhcp if family in old.dhcp] if was == interface else []
    commands = [
        f"route delete default via {static.gateway} dev {was}"
        for static in old.static
        if static.gateway and static.gateway not in routes
    ]
    return commands + [
        f"address delete {address}/{prefix} dev {was}"
        for address, prefix in addresses.items()
        if not address.startswith("fe80:")
        and (address, prefix) not in kept
        and (6 if ":" in address else 4) not in automatic
    ]
