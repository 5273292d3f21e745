"""How this boot came about, as PID 1 and the kernel know; and messages for whoever is at a console."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from thimble.core.problem import Problem
from thimble.deploy import sysfs
from thimble.host.pid1 import BootFacts, Init
from thimble.sys import log


def facts(init: Init) -> BootFacts:
    """As PID 1 knows by now; it learns the last of it after readiness."""
    found = init.boot or BootFacts()
    if found.build:
        return found
    return msgspec.structs.replace(found, build=init.words.get("thimble.build", ""))


def known(init: Init) -> bool:
    """Does PID 1 know what we were started from? CD drives it asks last."""
    return init.boot is not None and (init.boot.medium is not None or init.searched)


def disk(boot: BootFacts) -> str:
    """The disk we were started from; empty when PID 1 only guesses, because one with slots is there."""
    if boot.medium is None:
        return ""
    guessed = not boot.slot and boot.medium.esp == sysfs.boot_partition(boot.medium.disk)
    return "" if guessed else boot.medium.disk


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def announce(init: Init, line: str) -> None:
    """A message in the log and, through PID 1, on every console."""
    log.say(line)
    if init.present:
        with suppress(Problem):  # nobody listens there: the log has it
            init.tell("say", line=line)
