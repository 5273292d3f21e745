"""The phases of the boot: the literal list, and what each does.

Phases run as soon as the phases they need are done (phases.py). Those that may wait for hardware run as job
children and call `done` later, so that disks, NICs and the agent's imports proceed side by side.
"""

from __future__ import annotations

import gc
import os

from . import blocks, boot_media, bridge, clock, drivers, entropy, linux, stage1
from .phases import Phase
from .tuning import apply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .stage2 import Boot

    Done = Callable[[], None]

# What each does is in ACTS, below.
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
    Phase("document", needs=("state",)),
    Phase("uplink", needs=("settings", "nics", "document")),
    Phase("address", needs=("uplink",)),
    Phase("ready", needs=("agent-go",)),
    Phase("firmware", needs=("ready",)),
    Phase("rest", needs=("ready", "address")),
    Phase("discs", needs=("rest", "firmware")),
    Phase("input", needs=("rest",)),
    Phase("ntp", needs=("rest",)),
)
# The phases after readiness do not wait longer for an agent that fails to get ready.
READY_AT_LATEST = 60.0
ADDRESS_AT_LATEST = 5.0


def _load_job(boot: Boot, name: str, work: Callable[[], list[str]], done: Done, missing: str) -> None:
    """Loads drivers in a child; what went wrong with some of them is logged and holds up nothing.

    `missing`: what the host lacks, in words, when a driver hangs.
    """

    def ended(result: Any, problem: str) -> None:
        boot.hotplug.report(result, problem)
        done()

    def late(why: str) -> None:
        boot.warn(f"{missing}: loading the drivers is {why}")
        done()

    boot.children.job(name, work, ended, late)


def drivers_(boot: Boot, done: Done) -> None:
    boot.table = drivers.load_table()
    done()


def kvm(boot: Boot, done: Done) -> None:
    module = drivers.kvm_module(boot.cpuinfo)
    if module:
        missing = "NO KVM, VMS WILL BE SLOW"
        _load_job(boot, "kvm", lambda: drivers.load(boot.table, (module,)), done, missing)
    else:
        boot.warn("the CPU offers no hardware virtualization, or the firmware hides it: VMs will be slow")
        done()


def agent_fork(boot: Boot, done: Done) -> None:
    gc.freeze()  # neither side's collector writes to what both share from here on
    boot.agent.start()
    done()


def settings(boot: Boot, done: Done) -> None:
    apply()
    bridge.set_up("lo")
    boot.identity.begin()
    if clock.not_before(boot.built):
        boot.warn("the clock was before the date of this image, and was set to that")
    done()


def disks(boot: Boot, done: Done) -> None:
    """Drivers of disks, then a first look at what is on them, in one child."""

    def work() -> list[Any]:
        return [drivers.coldplug(boot.table, (drivers.STORAGE,)), blocks.find()]

    def ended(result: Any, problem: str) -> None:
        problems, boot.state.seen = result or ([problem], [])
        boot.hotplug.report(problems, "")
        done()

    def late(why: str) -> None:
        """Looking again would hang in the same driver."""
        boot.disks_late = f"loading the drivers of disks is {why}"
        if boot.settings.state == "ram":
            boot.warn(f"SOME DISKS MAY BE MISSING: {boot.disks_late}")
        done()

    boot.children.job("disks", work, ended, late)


def state(boot: Boot, done: Done) -> None:
    if boot.settings.state == "ram":
        boot.state.use_ram("asked for on the kernel command line", loud=False)
        done()
    elif boot.disks_late:
        boot.state.use_ram(boot.disks_late, loud=True)
        done()
    else:
        boot.state.settle(boot.table, boot.state.seen, boot.settings.state_wait, done)


def seed(boot: Boot, done: Done) -> None:
    path = boot.state.path()
    if path:
        said = entropy.load(path, may_credit=not entropy.is_virtual(boot.cpuinfo))
        boot.ring.write("entropy", said)
        if clock.not_before(clock.stamped(path)):
            boot.warn("the clock was before the last shutdown, and was set to that")
    done()


def agent_go(boot: Boot, done: Done) -> None:
    boot.write_facts()
    boot.agent_process.release()
    done()


def nics(boot: Boot, done: Done) -> None:
    def work() -> list[str]:
        return drivers.load(boot.table, ("bridge",)) + drivers.coldplug(boot.table, (drivers.NETWORK,))

    _load_job(boot, "nics", work, done, "SOME NICS MAY BE MISSING")


def uplink(boot: Boot, done: Done) -> None:
    boot.uplink.start(boot.network_plan())
    done()


def address(boot: Boot, done: Done) -> None:
    """Done with the first address, or after a while: what is not urgent makes room for DHCP."""
    boot.address_done = done
    boot.loop.after(ADDRESS_AT_LATEST, done)
    if boot.uplink.urls():
        done()


def ready(boot: Boot, done: Done) -> None:
    """Done when the agent says so, or after `READY_AT_LATEST`."""
    boot.ready_done = done
    boot.loop.after(READY_AT_LATEST, done)
    if boot.is_ready:
        done()


def rest(boot: Boot, done: Done) -> None:
    """All other drivers: for guests, filters, sensors, watchdogs, keyboards, graphics."""

    def work() -> list[str]:
        os.nice(10)
        names = (*drivers.GUESTS, *drivers.INPUT, *drivers.NETFILTER)
        return drivers.load(boot.table, names) + drivers.coldplug(
            boot.table, (drivers.STORAGE, drivers.NETWORK, drivers.LATER)
        )

    _load_job(boot, "rest", work, done, "some devices may be missing")


def input_(boot: Boot, done: Done) -> None:
    boot.hotplug.open(boot.table)
    boot.consoles.refresh()
    boot.seats.open()
    boot.buttons.refresh()
    boot.watchdog.open()
    done()


def ntp(boot: Boot, done: Done) -> None:
    boot.identity.keep_time(boot.uplink.addressing.lease)
    done()
    boot.write_facts()
    linux.trim_heap()  # the driver table's file and whatever else only the boot needed
    if "thimble.timeline" in boot.settings.values:
        boot.say("timeline " + ", ".join(f"{what} {at:.2f}" for what, at in stage1.marks))


# A trailing underscore keeps a phase's name from hiding the module it uses.
ACTS: dict[str, Callable[[Boot, Done], None]] = {
    "drivers": drivers_,
    "kvm": kvm,
    "agent-fork": agent_fork,
    "disks": disks,
    "settings": settings,
    "state": state,
    "seed": seed,
    "agent-go": agent_go,
    "nics": nics,
    "document": boot_media.document_,
    "uplink": uplink,
    "address": address,
    "ready": ready,
    "firmware": boot_media.firmware_,
    "rest": rest,
    "discs": boot_media.discs,
    "input": input_,
    "ntp": ntp,
}
