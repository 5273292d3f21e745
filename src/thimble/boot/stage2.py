"""The second stage of PID 1: installs the event sources and runs the phases (phases.py) in their order.

What happens later (signals, the agent's messages, the network) is in events.py.
"""

from __future__ import annotations

import os
from functools import partial

from . import events, linux
from .net.uplink import DIRECTORY
from .phases import PHASES
from .pid1 import Pid1
from .timeline import mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .sequence import BootPhase


def run(built: float) -> None:
    """Runs the machine. `built` is the image's date. Returns never, or raises into the last resort."""
    os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)
    pid1 = Pid1(built, PHASES, events.on_network, events.follow_network)
    start(pid1)
    pid1.loop.run()


def start(pid1: Pid1) -> None:
    """Installs the event sources and starts the first phases."""
    pid1.loop.catch_signals()
    pid1.loop.on_signal = partial(events.on_signal, pid1)
    pid1.loop.watch(pid1.init_socket.fileno(), lambda _: events.on_datagram(pid1))
    linux.reboot(linux.RB_DISABLE_CAD)
    for warning in pid1.warnings:
        pid1.say(f"warning: {warning}")
    advance(pid1)


def advance(pid1: Pid1) -> None:
    """Starts all phases that may run; none while the machine goes down."""
    progress = pid1.progress
    for phase in progress.startable():
        if pid1.power.stage in ("stopping", "down"):
            return
        if phase.name not in progress.started:  # a phase before it may have started it
            progress.started.append(phase.name)
            _start_phase(pid1, phase)


def _start_phase(pid1: Pid1, phase: BootPhase) -> None:
    def done() -> None:
        if phase.name not in pid1.progress.done:
            pid1.progress.done.append(phase.name)
            mark(phase.name)
            advance(pid1)

    try:
        phase.run(pid1, done)
    except Exception as error:
        pid1.on_error(f"phase {phase.name}", error)
        done()
