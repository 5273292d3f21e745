"""What all VM verbs stand on: the records, the drivers, who owns what, and the answers they share.

Only code that inherits `Desk` writes VM records, and only through `_put` and `store`.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from typing import Any

import msgspec

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect
from thimble.contract.verbs import Started
from thimble.contract.vm import Intent
from thimble.core.decision import Deny, Ignore
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.core.units import MIB
from thimble.host import hardware
from thimble.network.records import PortUse
from thimble.state.store import Collection, Record, check
from thimble.state.tasks import Work
from thimble.storage.homes import VM_RECORD
from thimble.sys import log
from thimble.vm.driver import Driver
from thimble.vm.qemu.context import World
from thimble.vm.record.rules import HostFacts
from thimble.vm.record.spec import VmRecord

replace = msgspec.structs.replace

#: What QEMU itself needs beside the guest's memory, about.
OVERHEAD = 64 * MIB


class Desk:
    def __init__(self, world: World, entropy: Callable[[int], bytes], *, durable: bool) -> None:
        self.store: Collection[VmRecord] = Collection(VmRecord, noun="VM", inside=VM_RECORD, durable=durable)
        self.world = world
        self.drivers: dict[str, Driver] = {}
        self._entropy = entropy
        world.record = self.store.get
        world.intend = self._intend
        world.note_saved = self._note_saved
        world.note_unsaved = self._note_unsaved
        world.pin = self._pin

    def find(self, ref: str) -> Record[VmRecord]:
        """By id or name. Raises `Problem` NOT_FOUND."""
        found = self.store.find(ref) or next((r for r in self.store.all() if r.value.name == ref), None)
        if found is None:
            raise Problem(Code.NOT_FOUND, f"there is no VM {ref!r}", hint="`thimble vm list` shows all.")
        return found

    def _find(self, call: Call[Any]) -> tuple[Record[VmRecord], Driver]:
        found = self.find(call.path["vm"])
        check(call.if_match, found.rev, "VM")
        return found, self.drivers[found.id]

    def _facts(self) -> HostFacts:
        total, available = hardware.memory()
        accel = self.world.accel
        return HostFacts(
            cpus=os.cpu_count() or 1, memory_bytes=total, memory_available_bytes=available,
            accel=accel.name, accel_why=accel.why,
        )  # fmt: skip

    def _slow(self) -> str:
        return f"it runs emulated (TCG), many times slower than with KVM: {self.world.accel.why}"

    def _put(self, id: str, **fields: object) -> None:
        self.store.put(id, replace(self.store.get(id).value, **fields))

    def _intend(self, id: str, intent: Intent) -> None:
        """The commit of a start or stop."""
        if self.store.get(id).value.intent is not intent:
            self._put(id, intent=intent)

    def _note_saved(self, id: str, intent: Intent | None) -> None:
        """There is a saved state, and it must not get lost unseen. The file itself is the truth."""
        self._note(id, saved=True, intent=intent or self.store.get(id).value.intent)

    def _note_unsaved(self, id: str) -> None:
        self._note(id, saved=False)

    def _note(self, id: str, **fields: object) -> None:
        record = self.store.get(id).value
        if any(getattr(record, name) != value for name, value in fields.items()):
            try:
                self._put(id, **fields)
            except Problem as problem:
                log.say(f"{id}: its record is behind: {problem.detail}")

    def _pin(self, id: str, machine_type: str) -> None:
        """The machine QEMU made for it at its first start is its machine for life."""
        self._note(id, machine_type=machine_type)

    def _intend_off(self, id: str) -> str:
        """That it is to stay off; what must be told when that could not be kept. It goes off all the same."""
        try:
            self._intend(id, Intent.STOPPED)
        except Problem as problem:
            note = f"that it is to stay off could not be kept: {problem.detail}"
            log.say(f"{id}: {note}")
            return note
        return ""

    def _task(self, verb: str, id: str, work: Work, call: Call[Any]) -> Started:
        return Started(task=self.world.tasks.start(verb, id, work, owner=call.user), subject=id)

    def port_uses(self) -> list[PortUse]:
        """Every NIC of every VM."""
        return [
            PortUse(vm_id=r.id, vm_name=r.value.name, nic=nic.name, switch=nic.switch, mac=nic.mac, ip=nic.ip)
            for r in self.store.all()
            for nic in r.value.nics
        ]


def refuse_verb(verdict: object, found: Record[VmRecord]) -> None:
    if isinstance(verdict, Deny):
        reasons = list(verdict.reasons)
        refuse(reasons, f"{found.value.name}: {reasons[0].message}", hint=hint_for(reasons))


def hint_for(reasons: builtins.list[Reason]) -> str:
    if any(reason.code is Code.NO_MEMORY for reason in reasons):
        return "Stop another VM, or give this one less memory."
    if any(reason.code is Code.NO_SPACE for reason in reasons):
        return "Free space on its datastore, or stop it instead."
    if any(reason.code is Code.UNSUPPORTED for reason in reasons):
        return "Stop it instead."
    return "`allowed` of the VM names what can be done with it now."


def dry(
    blockers: builtins.list[Reason], verdict: object, effect: str, warnings: tuple[str, ...] = ()
) -> DryRun:
    effects = () if isinstance(verdict, Ignore) else (Effect(what=effect),)
    return DryRun(possible=not blockers, effects=effects, blockers=tuple(blockers), warnings=warnings)
