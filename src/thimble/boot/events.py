"""What happens while the machine runs: signals, the agent's words, changes of the network.

The agent's datagrams on `/run/thimble/init.sock`, a JSON object each, `verb` being one of

    ready       {"lines", "login"}   it serves; shown on the consoles
    say         {"line"}             for the consoles and the log
    load        {"modules"}          drivers, by any name modprobe would take
    network                          the management network's record is to be followed, and nothing else
    network     {"trial", "id", "seconds"}   these settings are, until `network` or for so long
    confirmed                        this boot was a trial, and is good
    poweroff  reboot  kexec          the guests are stopped: down. kexec: into the kernel that is loaded
"""

from __future__ import annotations

import json
import signal
import time

from . import management, stage1
from .confirm import MOMENT
from .power import KEXEC, POWEROFF, REBOOT
from .uplink import DIRECTORY, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .stage2 import Boot


def on_signal(boot: Boot, number: int) -> None:
    if number == signal.SIGCHLD:
        boot.children.reap()
    elif number == signal.SIGINT:
        boot.power.ask(REBOOT, "Ctrl-Alt-Del")
    elif number == signal.SIGPWR:
        boot.power.ask(POWEROFF, "power failure")


def on_datagram(boot: Boot) -> None:
    """The agent has something to say."""
    while True:
        try:
            message = json.loads(boot.init_socket.recv(65536))
        except BlockingIOError:
            return
        except ValueError:
            continue
        if isinstance(message, dict):
            obey(boot, message)


def obey(boot: Boot, message: dict[str, Any]) -> None:
    verb = message.get("verb")
    if verb == "say":
        boot.say(str(message.get("line", "")))
    elif verb == "ready":
        on_ready(boot, [str(line) for line in message.get("lines", [])], str(message.get("login", "")))
    elif verb == "load":
        boot.hotplug.load([str(name) for name in message.get("modules", [])])
    elif verb == "network":
        trial = message.get("trial")
        if isinstance(trial, dict):
            seconds = float(message.get("seconds", 0))
            boot.tentative.begin(str(message.get("id", "")), trial, seconds, boot.uplink.mac)
        else:
            read_network(boot)
    elif verb == "confirmed":
        boot.trial.confirmed()
    elif verb in (POWEROFF, REBOOT, KEXEC):
        boot.power.stop(verb)


def on_ready(boot: Boot, lines: list[str], login: str) -> None:
    """The agent serves; after its restarts only a new password is news for the consoles.

    `login` is shown on the consoles and kept nowhere else: the log can be read by every user of the API.
    """
    boot.power.agent_ready()
    if boot.is_ready:
        boot.say("the agent is ready again")
        if login:
            boot.consoles.show_login(login)
        return
    boot.is_ready = True
    stage1.mark("agent-ready")
    boot.say(f"ready in {time.clock_gettime(time.CLOCK_BOOTTIME):.1f} s")
    show_addresses(boot)
    for line in lines:
        boot.say(line)
    if login:
        boot.consoles.show_login(login)
    boot.write_facts()
    boot.ready_done()


def on_network(boot: Boot) -> None:
    """Links, addresses or leases changed."""
    boot.tentative.look(settled=boot.uplink.settled())
    facts = boot.uplink.facts()
    write_json(f"{DIRECTORY}/uplink.json", facts)
    here = boot.uplink.addressing
    boot.identity.learn(boot.uplink.mac, here.lease, here.dns(), facts["search"], boot.uplink.ntp())
    if boot.uplink.urls():
        boot.address_done()
    boot.write_facts()
    show_addresses(boot)


def read_network(boot: Boot) -> None:
    """Reads the record anew, in a child for it is on a disk, and follows it."""

    def ended(result: Any, problem: str) -> None:
        if problem:
            boot.say(f"the management network's settings cannot be read: {problem}")
            return
        boot.state.record = result
        if boot.tentative.end(result):
            boot.uplink.keep(boot.network_plan())
        else:
            boot.write_facts()
            boot.loop.after(MOMENT, lambda: follow_network(boot))

    boot.children.job("network", boot.state.read_record, ended)


def follow_network(boot: Boot) -> None:
    """The management network as its settings are now. Settings taken back give back their card as well."""
    boot.warnings = [line for line in boot.warnings if not line.startswith(management.WRONG)]
    plan = boot.network_plan()
    if boot.tentative.settings is None:
        plan.device = plan.device or boot.tentative.nic
        boot.tentative.nic = ""
    boot.uplink.change(plan)


def show_addresses(boot: Boot) -> None:
    """Address lines once the agent serves; each address once."""
    for url in boot.uplink.urls() if boot.is_ready else []:
        if url not in boot.shown:
            boot.shown.append(url)
            boot.say(url)
