"""PID 1's parts, put together: what it holds, what it says, and the facts it leaves for the agent.

`Pid1` declares every attribute that phases (phases.py, boot_media.py) and events (events.py) read or set; it
imports neither of them: stage2.py passes their functions in.
"""

from __future__ import annotations

import os
import socket
import time
from functools import partial

from . import firmware, lastresort, timeline
from .agent import RUN, SOCKET, AgentProcess
from .children import Children
from .cmdline import CommandLine
from .console.consoles import SystemConsoles
from .console.sessions import ConsoleSessions
from .devices.buttons import Buttons
from .devices.hotplug import Hotplug
from .devices.modalias import EMPTY
from .devices.watchdog import Watchdog
from .disks.statesearch import StateSearch
from .files import write_json
from .loop import Loop
from .net import ipparam, management
from .net.confirm import CommitConfirm
from .net.identity import HostIdentity
from .net.uplink import BRIDGE, Uplink
from .power import POWEROFF, REBOOT, Power
from .ramlog import RamLog
from .sequence import BootProgress
from .supervise import Supervised
from .trial import BootTrial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .sequence import BootPhase


class Pid1:
    """Everything PID 1 holds. `on_network` and `follow_network` get this object when the network changes."""

    def __init__(
        self,
        built: float,
        phases: Iterable[BootPhase],
        on_network: Callable[[Pid1], None],
        follow_network: Callable[[Pid1], None],
    ) -> None:
        """`built`: the image's build date, Unix seconds."""
        self.built = built
        self.log = RamLog(f"{RUN}/log")
        self.loop = Loop(self.on_error)
        self.consoles = SystemConsoles(self.loop)
        self.children = Children(self.loop, self.log)
        with open("/proc/cmdline") as file:
            self.command_line = CommandLine(file.read())
        self.command_line_plan = ipparam.plan(self.command_line.ip)
        self.warnings = self.command_line.warnings + self.command_line_plan.warnings
        self.progress = BootProgress(phases)
        self.cpuinfo = _read_start("/proc/cpuinfo")
        # What the phases and events find out, in the order they do.
        self.drivers = EMPTY
        self.disks_late = ""  # why the drivers of disks were not waited for
        self.loader, self.booted_from = firmware.LoaderFacts(), ""
        self.boot_facts: dict[str, Any] | None = None  # None until the firmware was asked
        self.document: dict[str, str] | None = None
        self.document_network: Any = None
        self.searched = False  # the whole machine was searched for medium and document
        self.is_ready = False
        self.ready_done: Callable[[], None] = lambda: None
        self.address_done: Callable[[], None] = lambda: None
        self.shown_urls: list[str] = []

        children, last_output = self.children, self.children.last_output
        self.state = StateSearch(self.loop, children, self.say, self.warn)
        self.agent_process = AgentProcess(children)
        self.agent = Supervised("agent", self.loop, self.agent_process.launch, self.say, last_output)
        self.identity = HostIdentity(self.loop, children, self.command_line, self.command_line_plan, self.say)
        self.uplink = Uplink(self.loop, children, self.command_line.nic, self.say, partial(on_network, self))
        self.confirm = CommitConfirm(self.loop, self.say, partial(follow_network, self), self.write_facts)
        self.watchdog = Watchdog(self.loop, partial(self.log.write, "watchdog"))
        supervised = [self.agent, self.uplink.addressing.dhcpcd, self.identity.chronyd]
        self.power = Power(
            self.loop, children, self.say, self.agent, supervised, self.state.path, self.watchdog.close
        )
        self.trial = BootTrial(self.loop, self.command_line.trial_timeout, self.say, self.on_trial_failed)
        self.buttons = Buttons(self.loop, lambda: self.power.ask(POWEROFF, "power button"))
        self.hotplug = Hotplug(self.loop, children, self.log, self.buttons.refresh)
        self.console_sessions = ConsoleSessions(
            self.loop, children, self.consoles, self.say, lambda: self.power.stage in ("up", "draining")
        )
        self.init_socket = _init_socket()

    def network_plan(self) -> ipparam.UplinkPlan:
        """How the management network is to be, as far as is known now; mistakes in it become warnings."""
        found = management.plan(
            self.command_line_plan, self.state.record, self.document_network, self.confirm.settings
        )
        for warning in found.warnings if not found.given else []:
            self.warn(warning)
        return found

    def learn_boot(self) -> None:
        """What was booted from, as far as is known now."""
        self.boot_facts = firmware.facts(
            self.loader, self.booted_from, self.state.seen, self.command_line.values, self.state.disks
        )
        if self.boot_facts["trial"]:
            lastresort.settings["wait"] = 2.0

    def on_trial_failed(self, why: str) -> None:
        """The loader counts; in the end the other slot starts."""
        self.power.ask(REBOOT, why)

    def on_error(self, what: str, error: BaseException) -> None:
        import traceback

        self.say(f"{what}: {type(error).__name__}: {error}")
        for line in "".join(traceback.format_exception(error)).splitlines():
            self.log.write("boot", line)

    def say(self, line: str) -> None:
        self.log.write("boot", line)
        self.consoles.say(line)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.say(f"warning: {text}")

    def write_facts(self) -> None:
        """`/run/thimble/boot.json`, for the agent, which reads it whenever it wants to know."""
        state = {"kind": self.state.kind, "device": self.state.device, "reason": self.state.reason}
        problem = self.uplink.addressing.problem
        facts = {
            "state": state,
            "cmdline": self.command_line.values,
            "uplink": {"bridge": BRIDGE, "nic": self.uplink.nic},
            "warnings": self.warnings + ([problem] if problem else []) + self.confirm.warnings(),
            "kernel_start": time.time() - time.clock_gettime(time.CLOCK_BOOTTIME),
            "timeline": timeline.marks,
            "boot": self.boot_facts,
            "document": self.document,
            "searched": self.searched,
            "network_trial": self.confirm.facts(),
        }
        write_json(f"{RUN}/boot.json", facts)


def _init_socket() -> socket.socket:
    """Only root may speak to PID 1."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    sock.bind(SOCKET)
    os.umask(before)
    return sock


def _read_start(path: str) -> str:
    """The first CPU of /proc/cpuinfo is enough; with 256 of them the file is long."""
    with open(path, "rb", buffering=0) as file:
        return file.read(8192).decode("utf-8", "replace")
