"""The second stage of PID 1: the literal list of phases, what each does, and what happens afterwards.

Phases run as soon as the phases they need are done (phases.py). Those that may wait for hardware run as job
children and call `done` later, so that disks, NICs, KVM and the agent's imports proceed side by side.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import time

from . import bridge, clock, drivers, entropy, first, ipparam, linux, statedisk, uevent
from .agent import RUN, SOCKET, STATE, Agent
from .buttons import Buttons
from .cmdline import Settings, valid_hostname
from .consoles import Consoles
from .jobs import Children
from .lastresort import last_resort
from .loop import Loop
from .modalias import Table
from .phases import Phase, Progress
from .power import POWEROFF, REBOOT, Power
from .ring import Ring
from .supervise import Supervised
from .uplink import DIRECTORY, Uplink, write_json

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
    Phase("guests", needs=("nics",)),
    Phase("ready", needs=("agent-go",)),
    Phase("rest", needs=("ready", "uplink", "guests")),
    Phase("input", needs=("rest",)),
    Phase("ntp", needs=("rest",)),
)
# The phases after readiness do not wait for an agent that fails to get ready.
READY_AT_LATEST = 60.0

SYSCTLS = (
    ("kernel/panic", "10"),
    ("kernel/sysrq", "176"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "1"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/pid_max", "4194304"),
    ("kernel/modprobe", f"{RUN}/modprobe"),
    ("vm/overcommit_memory", "1"),
    ("vm/max_map_count", "1048576"),
    ("fs/aio-max-nr", "1048576"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_fifos", "1"),
    ("fs/protected_regular", "2"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/core/default_qdisc", "fq_codel"),
)
MODPROBE = f"#!{sys.executable} -BIS\nfrom thimble.boot.modprobe import main\nmain()\n"


EMPTY = Table({"format": 1, "modules": {}, "names": {}, "buses": {}, "lengths": {}})


def run(built: float) -> None:
    """Runs the machine. `built` is the image's date. Returns never, or raises into the last resort."""
    os.makedirs(f"{RUN}/net", mode=0o755, exist_ok=True)
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
        self.state: dict[str, str] = {"kind": "ram", "device": "", "reason": ""}
        self.cpuinfo = _read_start("/proc/cpuinfo")
        self.table = EMPTY
        self.own_hostname = ""
        self.ready_lines: list[str] = []
        self.is_ready = False
        self.shown: list[str] = []
        self.ntp: list[str] = []
        self.candidates: list[statedisk.Candidate] = []
        self.state_deadline = 0.0
        self.hotplugged: list[str] = []
        self.hotplug_runs = False

        self.agent_process = Agent(self.children)
        words = self.children.words
        self.agent = Supervised("agent", self.loop, self.agent_process.launch, self.say, words)
        self.uplink = Uplink(
            self.loop, self.children, self.plan, self.settings.nic, self.say, self.on_network
        )
        self.chronyd = Supervised("chronyd", self.loop, self._launch_chronyd, self.say, words)
        supervised = [self.agent, self.uplink.dhcpcd, self.chronyd]
        self.power = Power(self.loop, self.children, self.say, self.agent, supervised, self._state_path)
        self.buttons = Buttons(self.loop, lambda: self.power.ask(POWEROFF, "power button"))
        self.init_socket = _init_socket()
        self.uevents = _uevent_socket()

    def start(self) -> None:
        """Installs the event sources and starts the first phases."""
        self.loop.catch_signals()
        self.loop.on_signal = self.on_signal
        self.loop.watch(self.init_socket.fileno(), self.on_datagram)
        self.loop.watch(self.uevents.fileno(), self.on_uevent)
        linux.reboot(linux.RB_DISABLE_CAD)
        for warning in self.warnings:
            self.say(f"warning: {warning}")
        gc.freeze()
        self.advance()

    # -- phases ------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Starts all phases that may run."""
        for phase in self.progress.startable():
            if phase.name in self.progress.started:
                continue
            self.progress.started.append(phase.name)
            method = getattr(self, "phase_" + phase.name.replace("-", "_"))
            try:
                method(lambda phase=phase: self.phase_done(phase))
            except Exception as error:
                self.on_error(f"phase {phase.name}", error)
                self.phase_done(phase)

    def phase_done(self, phase: Phase) -> None:
        """A phase says that it is done; those that waited for it start."""
        if phase.name not in self.progress.done:
            self.progress.done.append(phase.name)
            first.mark(phase.name)
            self.advance()

    def phase_agent_fork(self, done: Callable[[], None]) -> None:
        self.agent.start()
        done()

    def phase_drivers(self, done: Callable[[], None]) -> None:
        self.table = drivers.load_table()
        done()

    def phase_settings(self, done: Callable[[], None]) -> None:
        _write_file(f"{RUN}/modprobe", MODPROBE, 0o755)
        for key, value in SYSCTLS:
            bridge.write_setting(f"/proc/sys/{key}", value)
        bridge.write_setting("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +memory +io +pids +cpuset")
        bridge.set_up("lo")
        self._set_hostname(self.settings.hostname or valid_hostname(self.plan.hostname) or "thimble")
        if clock.not_before(self.built):
            self.warn("the clock was before the date of this image, and was set to that")
        done()

    def phase_disks(self, done: Callable[[], None]) -> None:
        """Drivers of disks, then a first look for the state partition, in one child."""
        wanted = self.settings.state == "auto"

        def work() -> list[Any]:
            problems = drivers.coldplug(self.table, (drivers.STORAGE,))
            return [problems, statedisk.find() if wanted else []]

        def ended(result: Any, problem: str) -> None:
            problems, self.candidates = result or ([problem], [])
            self._driver_problems(problems)
            done()

        self.children.job("disks", work, ended)

    def phase_kvm(self, done: Callable[[], None]) -> None:
        module = drivers.kvm_module(self.cpuinfo)
        if not module:
            self.warn("the CPU offers no hardware virtualization, or the firmware hides it: VMs will be slow")

            return done()

        def work() -> list[str]:
            return drivers.load(self.table, (module,))

        self.children.job("kvm", work, lambda result, problem: self._loaded(result, problem, done))
        return None

    def phase_guests(self, done: Callable[[], None]) -> None:
        """What VMs need beside KVM."""

        def work() -> list[str]:
            return drivers.load(self.table, drivers.GUESTS)

        self.children.job("guests", work, lambda result, problem: self._loaded(result, problem, done))

    def phase_nics(self, done: Callable[[], None]) -> None:
        def work() -> list[str]:
            return drivers.load(self.table, ("bridge",)) + drivers.coldplug(self.table, (drivers.NETWORK,))

        self.children.job("nics", work, lambda result, problem: self._loaded(result, problem, done))

    def phase_state(self, done: Callable[[], None]) -> None:
        """Decides for a state partition, or for RAM; waits a while for USB disks to show up."""
        if self.settings.state == "ram":
            self._state_in_ram("asked for on the kernel command line", loud=False)
            return done()
        self.state_deadline = time.monotonic() + self.settings.state_wait
        self._state_look(done)
        return None

    def phase_seed(self, done: Callable[[], None]) -> None:
        path = self._state_path()
        if path:
            said = entropy.load(path, may_credit=not entropy.is_virtual(self.cpuinfo))
            self.ring.write("entropy", said)
            if clock.not_before(clock.stamped(path)):
                self.warn("the clock was before the last shutdown, and was set to that")
        done()

    def phase_uplink(self, done: Callable[[], None]) -> None:
        self.uplink.start()
        done()

    def phase_agent_go(self, done: Callable[[], None]) -> None:
        self.write_facts()
        self.agent_process.release()
        done()

    def phase_ready(self, done: Callable[[], None]) -> None:
        """Done when the agent says so, or after `READY_AT_LATEST`."""
        self.ready_done = done
        self.loop.after(READY_AT_LATEST, done)
        if self.is_ready:
            done()

    def phase_rest(self, done: Callable[[], None]) -> None:
        """All other drivers: sensors, watchdogs, keyboards, graphics, filters."""

        def work() -> list[str]:
            os.nice(10)
            problems = drivers.load(self.table, drivers.INPUT)
            problems += drivers.load(self.table, drivers.NETFILTER)
            return problems + drivers.coldplug(self.table, (0, 1, 2))

        self.children.job("rest", work, lambda result, problem: self._loaded(result, problem, done))

    def phase_input(self, done: Callable[[], None]) -> None:
        self.consoles.refresh()
        self.buttons.refresh()
        done()

    def phase_ntp(self, done: Callable[[], None]) -> None:
        self._update_ntp(start=True)
        done()

    # -- state ---------------------------------------------------------------------------------------

    def _state_look(self, done: Callable[[], None]) -> None:
        waiting = time.monotonic() < self.state_deadline
        if not self.candidates and waiting and (statedisk.usb_is_busy() or self._usb_is_young()):
            self.children.job("look", statedisk.find, lambda found, _: self._state_found(found or [], done))
            return
        chosen, reason = statedisk.choose(self.candidates)
        if chosen is None:
            self._state_in_ram(reason, loud=bool(self.candidates))
            done()
        else:
            self._state_check(chosen, done)

    def _state_found(self, found: list[statedisk.Candidate], done: Callable[[], None]) -> None:
        self.candidates = found
        self.loop.after(0.0 if found else 0.2, lambda: self._state_look(done))

    def _usb_is_young(self) -> bool:
        """USB tells its devices within about two seconds of its driver's start."""
        return statedisk.has_usb() and time.monotonic() < self.state_deadline - self.settings.state_wait + 2.0

    def _state_check(self, chosen: statedisk.Candidate, done: Callable[[], None]) -> None:
        device, _, is_clean = chosen
        if is_clean:
            return self._state_mount(device, done)
        self.say(f"checking the state partition {device}")
        killer = self.loop.after(300.0, lambda: os.kill(pid, signal.SIGTERM) if pid else None)

        def ended(status: int) -> None:
            killer.cancel()
            code = os.waitstatus_to_exitcode(status)
            if 0 <= code < 4:
                self._state_mount(device, done)
            else:
                self._state_in_ram(f"{device} is damaged: e2fsck ended with code {code}", loud=True)
                done()

        pid = self.children.spawn(["/usr/sbin/e2fsck", "-p", device], ended)
        return None

    def _state_mount(self, device: str, done: Callable[[], None]) -> None:
        def ended(_: Any, problem: str) -> None:
            if problem:
                self._state_in_ram(f"{device} could not be mounted: {problem}", loud=True)
            else:
                self.state = {"kind": "partition", "device": device, "reason": ""}
                self.say(f"state is on {device}")
            done()

        self.children.job("state", lambda: statedisk.mount(self.table, device), ended)

    def _state_in_ram(self, reason: str, *, loud: bool) -> None:
        statedisk.mount_ram()
        self.state = {"kind": "ram", "device": "", "reason": reason}
        if loud:
            self.warn(f"STATE IS IN RAM AND WILL BE LOST: {reason}")
        else:
            self.say(f"state is in RAM and ends with the power ({reason})")

    def _state_path(self) -> str:
        return STATE if self.state["kind"] == "partition" else ""

    # -- events --------------------------------------------------------------------------------------

    def on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self.children.reap()
        elif number == signal.SIGINT:
            self.power.ask(REBOOT, "Ctrl-Alt-Del")
        elif number == signal.SIGPWR:
            self.power.ask(POWEROFF, "power failure")

    def on_datagram(self, _: int) -> None:
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
                self.on_ready([str(line) for line in message.get("lines", [])])
            elif verb == "load":
                names = [str(name) for name in message.get("modules", [])]
                self.children.job("load", lambda names=names: drivers.load_named(names), self._hotplug_loaded)  # type: ignore[misc]
            elif verb in (POWEROFF, REBOOT):
                self.power.stop(verb)

    def on_ready(self, lines: list[str]) -> None:
        """The agent serves; after its restarts that is not news for the consoles."""
        if self.is_ready:
            self.say("the agent is ready again")
            return
        self.is_ready = True
        first.mark("agent-ready")
        self.say("ready in {:.1f} s".format(time.clock_gettime(time.CLOCK_BOOTTIME)))
        self.ready_lines = lines
        self.show_addresses()
        for line in lines:
            self.say(line)
        self.write_facts()
        if "ready" in self.progress.started:
            self.ready_done()

    def on_network(self) -> None:
        """Links, addresses or leases changed."""
        facts = self.uplink.facts()
        write_json(f"{DIRECTORY}/uplink.json", facts)
        search = facts["search"]
        from .lease import resolv_conf

        _write_file("/etc/resolv.conf", resolv_conf(self.uplink.dns(), search), 0o644)
        if not self.settings.hostname and not self.plan.hostname:
            mac = self.uplink.mac.replace(":", "")[-6:]
            name = valid_hostname(self.uplink.lease.hostname) or (f"thimble-{mac}" if mac else "")
            if name and os.uname().nodename == self.own_hostname:
                self._set_hostname(name)
        if self.chronyd.wanted:
            self._update_ntp(start=False)
        self.write_facts()
        self.show_addresses()

    def on_uevent(self, _: int) -> None:
        while True:
            try:
                event = uevent.parse(self.uevents.recv(65536))
            except BlockingIOError:
                break
            except OSError:
                continue
            if event.get("ACTION") != "add":
                continue
            if event.get("MODALIAS"):
                self.hotplugged.append(event["MODALIAS"])
            if event.get("SUBSYSTEM") == "input":
                self.loop.after(0.2, self.buttons.refresh)
        self._hotplug()

    def _hotplug(self) -> None:
        """Drivers for devices that came; while the boot's own coldplug runs it sees them by itself."""
        if self.hotplug_runs or "rest" not in self.progress.done:
            if "rest" not in self.progress.started:
                self.hotplugged = self.hotplugged[-1000:]
            return
        aliases, self.hotplugged = self.hotplugged, []
        modules = {module for alias in aliases for module in self.table.drivers_for(alias)}
        missing = sorted(name for name in modules if not os.path.exists(f"/sys/module/{name}"))
        if missing:
            self.hotplug_runs = True
            self.children.job("hotplug", lambda: drivers.load(self.table, missing), self._hotplug_loaded)

    def _hotplug_loaded(self, result: Any, problem: str) -> None:
        self.hotplug_runs = False
        self._driver_problems(result if result is not None else [problem])
        self._hotplug()

    # -- small things --------------------------------------------------------------------------------

    def say(self, line: str) -> None:
        self.ring.write("boot", line)
        self.consoles.say(line)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.say(f"warning: {text}")

    def on_error(self, what: str, error: BaseException) -> None:
        self.say(f"{what}: {type(error).__name__}: {error}")
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            self.ring.write("boot", line)

    def show_addresses(self) -> None:
        """Address lines once the agent serves; each address once."""
        if self.is_ready:
            for url in self.uplink.urls():
                if url not in self.shown:
                    self.shown.append(url)
                    self.say(url)

    def write_facts(self) -> None:
        """`/run/thimble/boot.json`, for the agent."""
        facts = {
            "state": self.state,
            "cmdline": self.settings.values,
            "uplink": {"bridge": "uplink", "nic": self.uplink.nic},
            "warnings": self.warnings,
            "kernel_start": time.time() - time.clock_gettime(time.CLOCK_BOOTTIME),
            "timeline": first.marks,
        }
        write_json(f"{RUN}/boot.json", facts)

    def _set_hostname(self, name: str) -> None:
        linux.set_hostname(name)
        self.own_hostname = name

    def _loaded(self, result: Any, problem: str, done: Callable[[], None]) -> None:
        self._driver_problems(result if result is not None else [problem])
        done()

    def _driver_problems(self, problems: list[str]) -> None:
        for problem in problems:
            self.ring.write("drivers", problem)

    def _update_ntp(self, *, start: bool) -> None:
        servers = self.settings.ntp or self.plan.ntp or self.uplink.lease.ntp
        if start or servers != self.ntp:
            self.ntp = list(servers)
            _write_file(clock.CONFIGURATION, clock.chrony_conf(self.ntp), 0o644)
            self.chronyd.restart()

    def _launch_chronyd(self, on_exit: Callable[[int], None]) -> int:
        return self.children.spawn(clock.chrony_argv(), on_exit)


def _init_socket() -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    os.umask(0o077)
    door.bind(SOCKET)
    os.umask(0o022)
    return door


def _uevent_socket() -> socket.socket:
    netlink_kobject_uevent = 15
    door = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, netlink_kobject_uevent)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    door.bind((0, 1))
    return door


def _read_start(path: str) -> str:
    """The first CPU of /proc/cpuinfo is enough; with 256 of them the file is long."""
    with open(path, "rb", buffering=0) as file:
        return file.read(8192).decode("utf-8", "replace")


def _write_file(path: str, text: str, mode: int) -> None:
    """Replaces a file in RAM in one step."""
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.chmod(f"{path}.new", mode)
    os.replace(f"{path}.new", path)


__all__ = ["PHASES", "last_resort", "run"]
