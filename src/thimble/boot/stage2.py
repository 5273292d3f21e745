"""The second stage of PID 1: everything it holds, put together, and the order of its phases (steps.py).

What happens later (signals, the agent's words, the network) is in events.py.
"""

from __future__ import annotations

import os
import socket
import time

from . import events, firmware, ipparam, lastresort, linux, management, stage1, steps
from .agent import RUN, SOCKET, Agent
from .buttons import Buttons
from .children import Children
from .cmdline import Settings
from .confirm import Tentative
from .console_sessions import Seats
from .consoles import Consoles
from .hotplug import Hotplug
from .identity import Identity
from .loop import Loop
from .modalias import EMPTY
from .phases import Phase, Progress
from .power import POWEROFF, REBOOT, Power
from .ring import Ring
from .statesearch import StateSearch
from .supervise import Supervised
from .trial import Trial
from .uplink import BRIDGE, DIRECTORY, Uplink, write_json
from .watchdog import Watchdog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def run(built: float) -> None:
    """Runs the machine. `built` is the image's date. Returns never, or raises into the last resort."""
    os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)
    boot = Boot(built)
    boot.start()
    boot.loop.run()


class Boot:
    """Everything PID 1 holds."""

    def __init__(self, built: float) -> None:
        self.built = built
        self.ring = Ring(f"{RUN}/log")
        self.loop = Loop(self.on_error)
        self.consoles = Consoles(self.loop)
        self.children = Children(self.loop, self.ring)
        with open("/proc/cmdline") as file:
            self.settings = Settings(file.read())
        self.plan = ipparam.plan(self.settings.ip)
        self.warnings = self.settings.warnings + self.plan.warnings
        self.progress = Progress(steps.PHASES)
        self.cpuinfo = _read_start("/proc/cpuinfo")
        self.table = EMPTY
        self.disks_late = ""
        self.left, self.booted_from = firmware.Left(), ""
        self.boot_facts: dict[str, Any] | None = None
        self.document: dict[str, str] | None = None
        self.document_network: Any = None
        self.searched = False
        self.is_ready = False
        self.ready_done: Callable[[], None] = lambda: None
        self.address_done: Callable[[], None] = lambda: None
        self.shown: list[str] = []

        children, words = self.children, self.children.words
        self.state = StateSearch(self.loop, children, self.say, self.warn)
        self.agent_process = Agent(children)
        self.agent = Supervised("agent", self.loop, self.agent_process.launch, self.say, words)
        self.identity = Identity(self.loop, children, self.settings, self.plan, self.say)
        self.uplink = Uplink(
            self.loop, children, self.settings.nic, self.say, lambda: events.on_network(self)
        )
        self.tentative = Tentative(self.loop, self.say, lambda: events.follow_network(self), self.write_facts)
        self.watchdog = Watchdog(self.loop, lambda line: self.ring.write("watchdog", line))
        supervised = [self.agent, self.uplink.addressing.dhcpcd, self.identity.chronyd]
        self.power = Power(
            self.loop, children, self.say, self.agent, supervised, self.state.path, self.watchdog.close
        )
        self.trial = Trial(self.loop, self.settings.trial_timeout, self.say, self.on_trial_failed)
        self.buttons = Buttons(self.loop, lambda: self.power.ask(POWEROFF, "power button"))
        self.hotplug = Hotplug(self.loop, children, self.ring, self.buttons.refresh)
        self.seats = Seats(
            self.loop, children, self.consoles, self.say, lambda: self.power.stage in ("up", "draining")
        )
        self.init_socket = _init_socket()

    def start(self) -> None:
        """Installs the event sources and starts the first phases."""
        self.loop.catch_signals()
        self.loop.on_signal = lambda number: events.on_signal(self, number)
        self.loop.watch(self.init_socket.fileno(), lambda _: events.on_datagram(self))
        linux.reboot(linux.RB_DISABLE_CAD)
        for warning in self.warnings:
            self.say(f"warning: {warning}")
        self.advance()

    def advance(self) -> None:
        """Starts all phases that may run; on the way down none."""
        for phase in self.progress.startable():
            if self.power.stage in ("stopping", "down"):
                return
            if phase.name not in self.progress.started:  # a phase before it may have started it
                self.progress.started.append(phase.name)
                self._start_phase(phase)

    def _start_phase(self, phase: Phase) -> None:
        def done() -> None:
            if phase.name not in self.progress.done:
                self.progress.done.append(phase.name)
                stage1.mark(phase.name)
                self.advance()

        try:
            steps.ACTS[phase.name](self, done)
        except Exception as error:
            self.on_error(f"phase {phase.name}", error)
            done()

    def network_plan(self) -> ipparam.Plan:
        """How the management network is to be, as far as is known now; its faults are told."""
        found = management.plan(self.plan, self.state.record, self.document_network, self.tentative.settings)
        for warning in found.warnings if not found.given else []:
            self.warn(warning)
        return found

    def learn_boot(self) -> None:
        """What was booted from, as far as is known now."""
        self.boot_facts = firmware.facts(
            self.left, self.booted_from, self.state.seen, self.settings.values, self.state.disks
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
            self.ring.write("boot", line)

    def say(self, line: str) -> None:
        self.ring.write("boot", line)
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
            "cmdline": self.settings.values,
            "uplink": {"bridge": BRIDGE, "nic": self.uplink.nic},
            "warnings": self.warnings + ([problem] if problem else []) + self.tentative.warnings(),
            "kernel_start": time.time() - time.clock_gettime(time.CLOCK_BOOTTIME),
            "timeline": stage1.marks,
            "boot": self.boot_facts,
            "document": self.document,
            "searched": self.searched,
            "network_trial": self.tentative.facts(),
        }
        write_json(f"{RUN}/boot.json", facts)


def _init_socket() -> socket.socket:
    """Only root may speak to PID 1."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    door.bind(SOCKET)
    os.umask(before)
    return door


def _read_start(path: str) -> str:
    """The first CPU of /proc/cpuinfo is enough; with 256 of them the file is long."""
    with open(path, "rb", buffering=0) as file:
        return file.read(8192).decode("utf-8", "replace")
