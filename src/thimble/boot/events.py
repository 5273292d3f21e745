"""What happens while the machine runs: signals, the agent's messages, changes of the network.

The agent's datagrams on `/run/thimble/init.sock`, a JSON object each, `verb` being one of

    ready       {"lines", "login"}   the API is up; the lines are shown on the consoles
    say         {"line"}             for the consoles and the log
    load        {"modules"}          load drivers, by any name modprobe would take
    network                          apply the record of the management network (confirms or undoes a change)
    network     {"trial", "id", "seconds"}   apply these settings until `network` comes or the time is over
    confirmed                        this trial boot is good
    poweroff  reboot  kexec          the guests are stopped: go down. kexec: into the kernel that is loaded
"""

from __future__ import annotations

import json
import signal
import time

from . import timeline
from .files import write_json
from .net import management
from .net.confirm import MOMENT
from .net.uplink import DIRECTORY
from .power import KEXEC, POWEROFF, REBOOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .pid1 import Pid1


def on_signal(pid1: Pid1, number: int) -> None:
    if number == signal.SIGCHLD:
        pid1.children.reap()
    elif number == signal.SIGINT:
        pid1.power.ask(REBOOT, "Ctrl-Alt-Del")
    elif number == signal.SIGPWR:
        pid1.power.ask(POWEROFF, "power failure")


def on_datagram(pid1: Pid1) -> None:
    """Reads and handles the agent's messages."""
    while True:
        try:
            message = json.loads(pid1.init_socket.recv(65536))
        except BlockingIOError:
            return
        except ValueError:
            continue
        if isinstance(message, dict):
            handle(pid1, message)


def handle(pid1: Pid1, message: dict[str, Any]) -> None:
    verb = message.get("verb")
    if verb == "say":
        pid1.say(str(message.get("line", "")))
    elif verb == "ready":
        on_ready(pid1, [str(line) for line in message.get("lines", [])], str(message.get("login", "")))
    elif verb == "load":
        pid1.hotplug.load([str(name) for name in message.get("modules", [])])
    elif verb == "network":
        trial = message.get("trial")
        if isinstance(trial, dict):
            seconds = float(message.get("seconds", 0))
            pid1.confirm.begin(str(message.get("id", "")), trial, seconds, pid1.uplink.mac)
        else:
            read_network(pid1)
    elif verb == "confirmed":
        pid1.trial.confirmed()
    elif verb in (POWEROFF, REBOOT, KEXEC):
        pid1.power.stop(verb)


def on_ready(pid1: Pid1, lines: list[str], login: str) -> None:
    """The agent is ready; after a restart of it only a new password is shown on the consoles again.

    `login` is shown on the consoles and kept nowhere else: the log can be read by every user of the API.
    """
    pid1.power.agent_ready()
    if pid1.is_ready:
        pid1.say("the agent is ready again")
        if login:
            pid1.consoles.show_login(login)
        return
    pid1.is_ready = True
    timeline.mark("agent-ready")
    pid1.say(f"ready in {time.clock_gettime(time.CLOCK_BOOTTIME):.1f} s")
    show_addresses(pid1)
    for line in lines:
        pid1.say(line)
    if login:
        pid1.consoles.show_login(login)
    pid1.write_facts()
    pid1.ready_done()


def on_network(pid1: Pid1) -> None:
    """Links, addresses or leases changed."""
    pid1.confirm.look(settled=pid1.uplink.settled())
    facts = pid1.uplink.facts()
    write_json(f"{DIRECTORY}/uplink.json", facts)
    here = pid1.uplink.addressing
    pid1.identity.learn(pid1.uplink.mac, here.lease, here.dns(), facts["search"], pid1.uplink.ntp())
    if pid1.uplink.urls():
        pid1.address_done()
    pid1.write_facts()
    show_addresses(pid1)


def read_network(pid1: Pid1) -> None:
    """Reads the record again, in a child because it is on a disk, and applies it."""

    def ended(result: Any, problem: str) -> None:
        if problem:
            pid1.say(f"cannot read the settings of the management network: {problem}")
            return
        pid1.state.record = result
        if pid1.confirm.end(result):
            pid1.uplink.replace_plan(pid1.network_plan())
        else:
            pid1.write_facts()
            pid1.loop.after(MOMENT, lambda: follow_network(pid1))

    pid1.children.job("network", pid1.state.read_record, ended)


def follow_network(pid1: Pid1) -> None:
    """Applies the present settings. When a change was undone, the old NIC is used again."""
    pid1.warnings = [line for line in pid1.warnings if not line.startswith(management.WRONG)]
    plan = pid1.network_plan()
    if pid1.confirm.settings is None:
        plan.device = plan.device or pid1.confirm.nic
        pid1.confirm.nic = ""
    pid1.uplink.change(plan)


def show_addresses(pid1: Pid1) -> None:
    """Shows the host's URLs once the agent is ready; each only once."""
    for url in pid1.uplink.urls() if pid1.is_ready else []:
        if url not in pid1.shown_urls:
            pid1.shown_urls.append(url)
            pid1.say(url)
