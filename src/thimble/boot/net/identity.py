"""Host name, DNS resolver and time servers, as far as they follow from the network.

The kernel command line wins, then DHCP, then a default. If the agent changes the host name, it is left alone
from then on.
"""

from __future__ import annotations

import os

from .. import clock, linux
from ..cmdline import valid_hostname
from ..files import replace_file
from ..supervise import Supervised
from .lease import resolv_conf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..children import Children
    from ..cmdline import CommandLine
    from ..loop import Loop
    from .ipparam import UplinkPlan
    from .lease import LeaseFacts

DEFAULT_NAME = "thimble"


class HostIdentity:
    """Owns the host name, /etc/resolv.conf and chronyd."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        settings: CommandLine,
        plan: UplinkPlan,
        say: Callable[[str], None],
    ) -> None:
        self._children, self._settings, self._plan = children, settings, plan
        self._fixed_name = settings.hostname or valid_hostname(plan.hostname)
        self._set_name = ""
        self._servers: list[str] = []
        self._asked: list[str] = []
        self.chronyd = Supervised("chronyd", loop, self._launch, say, children.last_output)

    def begin(self) -> None:
        """Sets the name that holds until the network says more."""
        self._name(self._fixed_name or DEFAULT_NAME)

    def learn(self, mac: str, lease: LeaseFacts, dns: list[str], search: list[str], ntp: list[str]) -> None:
        """The network's facts changed. `ntp`: the time servers of the settings."""
        self._asked = ntp
        replace_file("/etc/resolv.conf", resolv_conf(dns, search))
        wanted = self._fixed_name or valid_hostname(lease.hostname) or default_name(mac)
        if wanted != self._set_name and os.uname().nodename == self._set_name:
            self._name(wanted)
        if self.chronyd.wanted and self._wanted_servers(lease) != self._servers:
            self.keep_time(lease)

    def keep_time(self, lease: LeaseFacts) -> None:
        """Starts chronyd, or starts it again with other servers."""
        self._servers = self._wanted_servers(lease)
        replace_file(clock.CONFIGURATION, clock.chrony_conf(self._servers))
        self.chronyd.restart()

    def _wanted_servers(self, lease: LeaseFacts) -> list[str]:
        return list(self._settings.ntp or self._plan.ntp or self._asked or lease.ntp)

    def _name(self, name: str) -> None:
        linux.set_hostname(name)
        self._set_name = name

    def _launch(self, on_exit: Callable[[int], None]) -> int:
        return self._children.spawn(clock.chrony_argv(), on_exit)


def default_name(mac: str) -> str:
    """`thimble-` and the last six digits of the MAC; just `thimble` without one."""
    digits = mac.replace(":", "")[-6:]
    return f"{DEFAULT_NAME}-{digits}" if digits else DEFAULT_NAME
