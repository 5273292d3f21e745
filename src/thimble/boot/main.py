"""The second stage of PID 1: the literal list of phases, and what each does.

Phases run as soon as the phases they need are done (phases.py). Those that may wait for hardware run as job
children and call `done` later, so that disks, NICs and the agent's imports proceed side by side.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import time

from . import bridge, clock, drivers, entropy, first, ipparam, linux, statedisk
from .agent import RUN, SOCKET, Agent
from .buttons import Buttons
from .cmdline import Settings
from .consoles import Consoles
from .hotplug import Hotplug
from .identity import Identity
from .jobs import Children
from .loop import Loop
from .modalias import EMPTY
from .phases import Phase, Progress
from .power import POWEROFF, REBOOT, Power
from .ring import Ring
from .statesearch import StateSearch
from .supervise import Supervised
from .tuning import apply
from .uplink import BRIDGE, DIRECTORY, Uplink, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Each name is a method `phase_NAME(done)` of Boot, dashes as underscores.
PHASES = (
    Phase("drivers"),
    # KVM's own code is patched as it loads, and each patch interrupts all CPUs: alone it takes 0.8 s of an
    # emulated server, beside a busy CPU up to five. So nothing else runs meanwhile.
    Phase("kvm", needs=("drivers",)),
    Phase("agent-fork", needs=("kvm",)),
    Phase("disks", needs=("kvm",)),
    Phase("settings", needs=("kvm",)),
    Phase("state", needs=("disks",)),
    Phase("seed", needs=("state",)),
    Phase("agent-go", needs=("agent-fork", "settings", "seed")),
    Phase("nics", needs=("disks",)),
    Phase("uplink", needs=("settings", "nics")),
    Phase("address", needs=("uplink",)),
    Phase("ready", needs=("agent-go",)),
    Phase("rest", needs=("ready", "address")),
    Phase("input", needs=("rest",)),
    Phase("ntp", needs=("rest",)),
)
# The phases after readiness do not wait longer for an agent that fails to get ready.
READY_AT_LATEST = 60.0
ADDRESS_AT_LATEST = 5.0


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
        self.progress = Progress(PHASES)
        self.cpuinfo = _read_start("/proc/cpuinfo")
        self.table = EMPTY
        self.candidates: list[statedisk.Candidate] = []
        self.disks_late = ""
        self.is_ready = False
        self.ready_done: Callable[[], None] = lambda: None
        self.address_done: Callable[[], None] = lambda: None
        self.shown: list[str] = []

        children, words = self.children, self.children.words
        self.state = StateSearch(self.loop, children, self.say, self.warn)
        self.agent_process = Agent(children)
        self.agent = Supervised("agent", self.loop, self.agent_process.launch, self.say, words)
        self.identity = Identity(self.loop, children, self.settings, self.plan, self.say)
        self.uplink = Uplink(self.loop, children, self.plan, self.settings.nic, self.say, self.on_network)
        supervised = [self.agent, self.uplink.dhcpcd, self.identity.chronyd]
        self.power = Power(self.loop, children, self.say, self.agent, supervised, self.state.path)
        self.buttons = Buttons(self.loop, lambda: self.power.ask(POWEROFF, "power button"))
        self.hotplug = Hotplug(self.loop, children, self.ring, self.buttons.refresh)
        self.init_socket = _init_socket()

    def start(self) -> None:
        """Installs the event sources and starts the first phases."""
        self.loop.catch_signals()
        self.loop.on_signal = self.on_signal
        self.loop.watch(self.init_socket.fileno(), self.on_datagram)
        linux.reboot(linux.RB_DISABLE_CAD)
        for warning in self.warnings:
            self.say(f"warning: {warning}")
        self.advance()

    # -- phases ----------------------------------------------------------------------------------

    def advance(self) -> None:
        """Starts all phases that may run."""
        for phase in self.progress.startable():
            if phase.name not in self.progress.started:  # a phase before it may have started it
                self.progress.started.append(phase.name)
                self._start_phase(phase)

    def _start_phase(self, phase: Phase) -> None:
        def done() -> None:
            if phase.name not in self.progress.done:
                self.progress.done.append(phase.name)
                first.mark(phase.name)
                self.advance()

        try:
            getattr(self, "phase_" + phase.name.replace("-", "_"))(done)
        except Exception as error:
            self.on_error(f"phase {phase.name}", error)
            done()

    def _load_job(
        self, name: str, work: Callable[[], list[str]], done: Callable[[], None], missing: str
    ) -> None:
        """Loads drivers in a child; what went wrong with some of them is logged and holds up nothing.

        `missing`: what the host lacks, in words, when a driver hangs.
        """

        def ended(result: Any, problem: str) -> None:
            self.hotplug.report(result, problem)
            done()

        def late(why: str) -> None:
            self.warn(f"{missing}: loading the drivers is {why}")
            done()

        self.children.job(name, work, ended, late)

    def phase_drivers(self, done: Callable[[], None]) -> None:
        self.table = drivers.load_table()
        done()

    def phase_kvm(self, done: Callable[[], None]) -> None:
        module = drivers.kvm_module(self.cpuinfo)
        if module:
            missing = "NO KVM, VMS WILL BE SLOW"
            self._load_job("kvm", lambda: drivers.load(self.table, (module,)), done, missing)
        else:
            self.warn("the CPU offers no hardware virtualization, or the firmware hides it: VMs will be slow")
            done()

    def phase_agent_fork(self, done: Callable[[], None]) -> None:
        gc.freeze()  # neither side's collector writes to what both share from here on
        self.agent.start()
        done()

    def phase_settings(self, done: Callable[[], None]) -> None:
        apply()
        bridge.set_up("lo")
        self.identity.begin()
        if clock.not_before(self.built):
            self.warn("the clock was before the date of this image, and was set to that")
        done()

    def phase_disks(self, done: Callable[[], None]) -> None:
        """Drivers of disks, then a first look for the state partition, in one child."""

        def work() -> list[Any]:
            problems = drivers.coldplug(self.table, (drivers.STORAGE,))
            return [problems, statedisk.find() if self.settings.state == "auto" else []]

        def ended(result: Any, problem: str) -> None:
            problems, self.candidates = result or ([problem], [])
            self.hotplug.report(problems, "")
            done()

        def late(why: str) -> None:
            """Looking again would hang in the same driver."""
            self.disks_late = f"loading the drivers of disks is {why}"
            if self.settings.state == "ram":
                self.warn(f"SOME DISKS MAY BE MISSING: {self.disks_late}")
            done()

        self.children.job("disks", work, ended, late)

    def phase_state(self, done: Callable[[], None]) -> None:
        if self.settings.state == "ram":
            self.state.use_ram("asked for on the kernel command line", loud=False)
            done()
        elif self.disks_late:
            self.state.use_ram(self.disks_late, loud=True)
            done()
        else:
            self.state.settle(self.table, self.candidates, self.settings.state_wait, done)

    def phase_seed(self, done: Callable[[], None]) -> None:
        path = self.state.path()
        if path:
            said = entropy.load(path, may_credit=not entropy.is_virtual(self.cpuinfo))
            self.ring.write("entropy", said)
            if clock.not_before(clock.stamped(path)):
                self.warn("the clock was before the last shutdown, and was set to that")
        done()

    def phase_agent_go(self, done: Callable[[], None]) -> None:
        self.write_facts()
        self.agent_process.release()
        done()

    def phase_nics(self, done: Callable[[], None]) -> None:
        def work() -> list[str]:
            return drivers.load(self.table, ("bridge",)) + drivers.coldplug(self.table, (drivers.NETWORK,))

        self._load_job("nics", work, done, "SOME NICS MAY BE MISSING")

    def phase_uplink(self, done: Callable[[], None]) -> None:
        self.uplink.start()
        done()

    def phase_address(self, done: Callable[[], None]) -> None:
        """Done with the first address, or after a while: what is not urgent makes room for DHCP."""
        self.address_done = done
        self.loop.after(ADDRESS_AT_LATEST, done)
        if self.uplink.urls():
            done()

    def phase_ready(self, done: Callable[[], None]) -> None:
        """Done when the agent says so, or after `READY_AT_LATEST`."""
        self.ready_done = done
        self.loop.after(READY_AT_LATEST, done)
        if self.is_ready:
            done()

    def phase_rest(self, done: Callable[[], None]) -> None:
        """All other drivers: for guests, filters, sensors, watchdogs, keyboards, graphics."""

        def work() -> list[str]:
            os.nice(10)
            names = (*drivers.GUESTS, *drivers.INPUT, *drivers.NETFILTER)
            return drivers.load(self.table, names) + drivers.coldplug(
                self.table, (drivers.STORAGE, drivers.NETWORK, drivers.LATER)
            )

        self._load_job("rest", work, done, "some devices may be missing")

    def phase_input(self, done: Callable[[], None]) -> None:
        self.hotplug.open(self.table)
        self.consoles.refresh()
        self.buttons.refresh()
        done()

    def phase_ntp(self, done: Callable[[], None]) -> None:
        self.identity.keep_time(self.uplink.lease)
        done()
        self.write_facts()
        if "thimble.timeline" in self.settings.values:
            self.say("timeline " + ", ".join(f"{what} {at:.2f}" for what, at in first.marks))

    # -- events ----------------------------------------------------------------------------------

    def on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self.children.reap()
        elif number == signal.SIGINT:
            self.power.ask(REBOOT, "Ctrl-Alt-Del")
        elif number == signal.SIGPWR:
            self.power.ask(POWEROFF, "power failure")

    def on_datagram(self, _: int) -> None:
        """The agent has something to say."""
        while True:
            try:
                message = json.loads(self.init_socket.recv(65536))
            except BlockingIOError:
                return
            except ValueError:
                continue
            verb = message.get("verb") if isinstance(message, dict) else None
            if verb == "say":
                self.say(str(message.get("line", "")))
            elif verb == "ready":
                lines = [str(line) for line in message.get("lines", [])]
                self.on_ready(lines, str(message.get("login", "")))
            elif verb == "load":
                self.hotplug.load([str(name) for name in message.get("modules", [])])
            elif verb in (POWEROFF, REBOOT):
                self.power.stop(verb)

    def on_ready(self, lines: list[str], login: str) -> None:
        """The agent serves; after its restarts only a new password is news for the consoles.

        `login` is shown on the consoles and kept nowhere: the log can be read by every user of the API.
        """
        self.power.agent_ready()
        if self.is_ready:
            self.say("the agent is ready again")
            if login:
                self.consoles.show(login)
            return
        self.is_ready = True
        first.mark("agent-ready")
        self.say(f"ready in {time.clock_gettime(time.CLOCK_BOOTTIME):.1f} s")
        self.show_addresses()
        for line in lines:
            self.say(line)
        if login:
            self.consoles.show(login)
        self.write_facts()
        self.ready_done()

    def on_network(self) -> None:
        """Links, addresses or leases changed."""
        facts = self.uplink.facts()
        write_json(f"{DIRECTORY}/uplink.json", facts)
        self.identity.learn(self.uplink.mac, self.uplink.lease, self.uplink.dns(), facts["search"])
        if self.uplink.urls():
            self.address_done()
        self.write_facts()
        self.show_addresses()

    def on_error(self, what: str, error: BaseException) -> None:
        import traceback

        self.say(f"{what}: {type(error).__name__}: {error}")
        for line in "".join(traceback.format_exception(error)).splitlines():
            self.ring.write("boot", line)

    # -- saying ----------------------------------------------------------------------------------

    def say(self, line: str) -> None:
        self.ring.write("boot", line)
        self.consoles.say(line)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.say(f"warning: {text}")

    def show_addresses(self) -> None:
        """Address lines once the agent serves; each address once."""
        for url in self.uplink.urls() if self.is_ready else []:
            if url not in self.shown:
                self.shown.append(url)
                self.say(url)

    def write_facts(self) -> None:
        """`/run/thimble/boot.json`, for the agent."""
        state = {"kind": self.state.kind, "device": self.state.device, "reason": self.state.reason}
        facts = {
            "state": state,
            "cmdline": self.settings.values,
            "uplink": {"bridge": BRIDGE, "nic": self.uplink.nic},
            "warnings": self.warnings,
            "kernel_start": time.time() - time.clock_gettime(time.CLOCK_BOOTTIME),
            "timeline": first.marks,
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
