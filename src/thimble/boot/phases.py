"""The phases of the boot: what each does, and at the end PHASES, the list with what each needs.

A phase runs as soon as those it needs are done (sequence.py). What may wait for hardware runs as job
children and call `done` later, so that disks, NICs and the agent's imports proceed side by side.
"""

from __future__ import annotations

import gc
import os

from . import boot_media, clock, entropy, linux, timeline
from .devices import drivers
from .disks import blocks
from .net import bridge
from .sequence import BootPhase
from .tuning import apply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .pid1 import Pid1

    Done = Callable[[], None]

# Seconds later phases wait at most for readiness and for the first address.
READY_AT_LATEST = 60.0
ADDRESS_AT_LATEST = 5.0


def _load_job(pid1: Pid1, name: str, work: Callable[[], list[str]], done: Done, missing: str) -> None:
    """Loads drivers in a child; failures are logged and hold up nothing.

    `missing`: what the host lacks when a driver hangs, for the warning.
    """

    def ended(result: Any, problem: str) -> None:
        pid1.hotplug.report(result, problem)
        done()

    def late(why: str) -> None:
        pid1.warn(f"{missing}: loading drivers {why}")
        done()

    pid1.children.job(name, work, ended, late)


def load_driver_table(pid1: Pid1, done: Done) -> None:
    pid1.drivers = drivers.load_table()
    done()


def kvm(pid1: Pid1, done: Done) -> None:
    module = drivers.kvm_module(pid1.cpuinfo)
    if module:
        missing = "NO KVM: VMS WILL BE SLOW"
        _load_job(pid1, "kvm", lambda: drivers.load(pid1.drivers, (module,)), done, missing)
    else:
        pid1.warn(
            "no hardware virtualization (VT-x/AMD-V): missing or disabled in the firmware; VMs will be slow"
        )
        done()


def fork_agent(pid1: Pid1, done: Done) -> None:
    gc.freeze()  # the collectors must not write to pages that parent and child share
    pid1.agent.start()
    done()


def settings(pid1: Pid1, done: Done) -> None:
    apply()
    bridge.set_up("lo")
    pid1.identity.begin()
    if clock.not_before(pid1.built):
        pid1.warn("the clock was earlier than the build date of this image and was set to it")
    done()


def disks(pid1: Pid1, done: Done) -> None:
    """Drivers of disks, then a first look at what is on them, in one child."""

    def work() -> list[Any]:
        return [drivers.coldplug(pid1.drivers, (drivers.STORAGE,)), blocks.find()]

    def ended(result: Any, problem: str) -> None:
        problems, pid1.state.seen = result or ([problem], [])
        pid1.hotplug.report(problems, "")
        done()

    def late(why: str) -> None:
        """Looking at the disks again would hang in the same driver."""
        pid1.disks_late = f"loading disk drivers {why}"
        if pid1.command_line.state == "ram":
            pid1.warn(f"SOME DISKS MAY BE MISSING: {pid1.disks_late}")
        done()

    pid1.children.job("disks", work, ended, late)


def state(pid1: Pid1, done: Done) -> None:
    if pid1.command_line.state == "ram":
        pid1.state.use_ram("requested on the kernel command line", loud=False)
        done()
    elif pid1.disks_late:
        pid1.state.use_ram(pid1.disks_late, loud=True)
        done()
    else:
        pid1.state.settle(pid1.drivers, pid1.state.seen, pid1.command_line.state_wait, done)


def seed(pid1: Pid1, done: Done) -> None:
    path = pid1.state.path()
    if path:
        said = entropy.load(path, may_credit=not entropy.is_virtual(pid1.cpuinfo))
        pid1.log.write("entropy", said)
        if clock.not_before(clock.stamped(path)):
            pid1.warn("the clock was earlier than the last shutdown and was set to it")
    done()


def release_agent(pid1: Pid1, done: Done) -> None:
    pid1.write_facts()
    pid1.agent_process.release()
    done()


def nics(pid1: Pid1, done: Done) -> None:
    def work() -> list[str]:
        return drivers.load(pid1.drivers, ("bridge",)) + drivers.coldplug(pid1.drivers, (drivers.NETWORK,))

    _load_job(pid1, "nics", work, done, "SOME NICS MAY BE MISSING")


def uplink(pid1: Pid1, done: Done) -> None:
    pid1.uplink.start(pid1.network_plan())
    done()


def address(pid1: Pid1, done: Done) -> None:
    """Done with the first address, or after `ADDRESS_AT_LATEST`: what is not urgent lets DHCP go first."""
    pid1.address_done = done
    pid1.loop.after(ADDRESS_AT_LATEST, done)
    if pid1.uplink.urls():
        done()


def ready(pid1: Pid1, done: Done) -> None:
    """Done when the agent is ready, or after `READY_AT_LATEST`."""
    pid1.ready_done = done
    pid1.loop.after(READY_AT_LATEST, done)
    if pid1.is_ready:
        done()


def rest(pid1: Pid1, done: Done) -> None:
    """All other drivers: for guests, filters, sensors, watchdogs, keyboards, graphics."""

    def work() -> list[str]:
        os.nice(10)
        names = (*drivers.GUESTS, *drivers.INPUT, *drivers.NETFILTER)
        return drivers.load(pid1.drivers, names) + drivers.coldplug(
            pid1.drivers, (drivers.STORAGE, drivers.NETWORK, drivers.LATER)
        )

    _load_job(pid1, "rest", work, done, "some devices may be missing")


def open_inputs(pid1: Pid1, done: Done) -> None:
    pid1.hotplug.open(pid1.drivers)
    pid1.consoles.refresh()
    pid1.console_sessions.open()
    pid1.buttons.refresh()
    pid1.watchdog.open()
    done()


def ntp(pid1: Pid1, done: Done) -> None:
    pid1.identity.keep_time(pid1.uplink.addressing.lease)
    done()
    pid1.write_facts()
    linux.trim_heap()  # the driver table's file and other memory only the boot needed
    if "thimble.timeline" in pid1.command_line.values:
        pid1.say("timeline " + ", ".join(f"{what} {at:.2f}" for what, at in timeline.marks))


# KVM's own code is patched as it loads, and each patch interrupts all CPUs: alone it takes 0.8 s of an
# emulated server, beside a busy CPU up to five. So everything else needs "kvm" first.
PHASES = (
    BootPhase("drivers", load_driver_table),
    BootPhase("kvm", kvm, "drivers"),
    BootPhase("agent-fork", fork_agent, "kvm"),
    BootPhase("disks", disks, "kvm"),
    BootPhase("settings", settings, "kvm"),
    BootPhase("state", state, "disks"),
    BootPhase("seed", seed, "state"),
    BootPhase("agent-go", release_agent, "agent-fork", "settings", "seed"),
    BootPhase("nics", nics, "disks"),
    BootPhase("document", boot_media.find_document, "state"),
    BootPhase("uplink", uplink, "settings", "nics", "document"),
    BootPhase("address", address, "uplink"),
    BootPhase("ready", ready, "agent-go"),
    BootPhase("firmware", boot_media.read_firmware, "ready"),
    BootPhase("rest", rest, "ready", "address"),
    BootPhase("discs", boot_media.discs, "rest", "firmware"),
    BootPhase("input", open_inputs, "rest"),
    BootPhase("ntp", ntp, "rest"),
)
