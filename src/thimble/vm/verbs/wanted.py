"""What a VM that is asked for, new or changed, would be, and everything that stands against it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

import msgspec

from thimble.contract import vm as wire
from thimble.core.problem import Code, Problem, Reason
from thimble.core.units import show_size
from thimble.state.store import Record
from thimble.vm.record import assign, change, rules
from thimble.vm.record.rules import HostFacts
from thimble.vm.record.spec import Card, Noted, VmRecord
from thimble.vm.table import VmTable

replace = msgspec.structs.replace


class Wanted:
    """Looks everything up and commits nothing; asked again right before the commit."""

    def __init__(self, table: VmTable) -> None:
        self._table = table
        self._context = table.context

    def blockers(
        self, want: wire.VmCreate, old: Record[VmRecord] | None = None, *, made: Collection[str] = ()
    ) -> list[Reason]:
        """Everything against `want`, ours and the neighbours'. `old`: the VM that is to become so; `made`:
        its new disks that were made by now, and need no more room.
        """
        storage, network = self._context.storage, self._context.network
        me, home = old.id if old else "", want.datastore
        reasons = [*rules.check(want, self._host()), *self._name_reasons(want.name, me)]
        reasons += storage.check_home(home, "$.datastore")
        if home in storage.homes() and home not in self._table.roots:
            words = f"the VMs on {home} are still being read: try again in a moment"
            reasons.append(Reason(message=words, code=Code.UNAVAILABLE, path="$.datastore"))
        if any(reason.path == "$.datastore" for reason in reasons):
            return reasons
        kept = {disk.name for disk in old.value.spec.disks} if old else set()
        for n, disk in enumerate(want.disks):
            if disk.name not in kept and (disk.volume or disk.name not in made):
                reasons += storage.check_disk(disk, home, f"$.disks[{n}]", vm=me)
        for n, nic in enumerate(want.nics):
            reasons += network.check_nic(nic, f"$.nics[{n}]", vm=me)
        for n, cdrom in enumerate(want.cdroms):
            if cdrom.image is not None:
                reasons += storage.check_image(cdrom.image, home, f"$.cdroms[{n}].image")
        if want.direct:
            reasons += storage.check_image(want.direct.kernel, home, "$.direct.kernel")
            if want.direct.initrd:
                reasons += storage.check_image(want.direct.initrd, home, "$.direct.initrd")
        return reasons

    def _host(self) -> HostFacts:
        total, available = self._context.memory()
        accel = self._context.accel
        return HostFacts(
            cpus=os.cpu_count() or 1, memory_bytes=total, memory_available_bytes=available,
            accel=accel.name, accel_why=accel.why,
        )  # fmt: skip

    def _name_reasons(self, name: str, me: str) -> list[Reason]:
        if any(r.value.spec.name == name and r.id != me for r in self._table.all()):
            return [Reason(message=f"there is a VM {name!r} already", code=Code.EXISTS, path="$.name")]
        return []

    def new(self, want: wire.VmCreate, noted: Noted) -> VmRecord:
        """The record of a new VM. Raises `Problem` when its devices do not fit, or what it uses is gone."""
        spec = self._resolved(want)
        return assign.created(
            spec,
            uid=assign.free_uid({r.value.assigned.uid for r in self._table.all()}),
            now=self._context.clock(),
            entropy=self._context.entropy,
            cards=self._cards(spec, None, ""),
            sizes=self._sizes(spec, want.datastore),
            noted=noted,
        )

    def changed(self, old: Record[VmRecord], want: wire.VmCreate) -> VmRecord:
        """The record that `want` makes of `old`. Raises `Problem` as `new`."""
        spec = change.merged(old.value.spec, self._resolved(want))
        known = old.value.assigned.disks
        sizes = {
            name: known.get(name) or size for name, size in self._sizes(spec, old.root, known).items()
        }  # fmt: skip
        given = replace(old.value.assigned, nics=self._cards(spec, old.value, old.id), disks=sizes)
        return assign.placed(replace(old.value, spec=spec, assigned=given))

    def _cards(self, spec: wire.VmSpec, old: VmRecord | None, me: str) -> dict[str, Card]:
        others = [port for port in self._table.port_uses() if port.vm_id != me]
        return assign.cards(
            spec.nics, old, {p.mac for p in others}, {p.ip for p in others}, self._context.entropy,
            self._context.network.address_for,
        )  # fmt: skip

    def _resolved(self, want: wire.VmCreate) -> wire.VmCreate:
        """With the full name of each volume."""
        home = want.datastore

        def full(disk: wire.DiskSpec) -> wire.DiskSpec:
            whole = disk.volume is None or "/" in disk.volume
            return disk if whole else replace(disk, volume=f"{home}/{disk.volume}")

        return replace(want, disks=tuple(full(disk) for disk in want.disks))

    def _sizes(self, spec: wire.VmSpec, home: str, known: dict[str, int] | None = None) -> dict[str, int]:
        """Of each disk, in bytes; 0 where it is only known when it is made."""
        storage = self._context.storage

        def size(disk: wire.DiskSpec) -> int:
            if known and disk.name in known:
                return known[disk.name]
            if disk.volume is not None:
                return storage.resolve_volume(disk.volume, home).size_bytes
            if disk.size_bytes is None and disk.image is not None:
                return storage.resolve_image(disk.image, home).size_bytes
            return disk.size_bytes or 0

        return {disk.name: size(disk) for disk in spec.disks}

    def effects(self, want: wire.VmCreate) -> tuple[str, ...]:
        """What creating it does."""
        lines = [f"creates VM {want.name} on {want.datastore}"]
        for disk in want.disks:
            if disk.volume is None:
                size = f" ({show_size(disk.size_bytes)})" if disk.size_bytes else ""
                copy = f", a copy of {disk.image}" if disk.image else ""
                lines.append(f"creates volume {disk.name}{size}{copy}")
        lines += [f"makes a port for {nic.name} on switch {nic.switch}" for nic in want.nics]
        return (*lines, "starts it") if want.start else tuple(lines)

    def warnings(self, want: wire.VmCreate) -> tuple[str, ...]:
        """What may go wrong later."""
        storage = self._context.storage
        return tuple(w for disk in want.disks for w in storage.disk_warnings(disk, want.datastore, disk.name))


def fits(make: Callable[[], VmRecord]) -> tuple[VmRecord | None, list[Reason]]:
    """The record that `make` makes, or why there can be none."""
    try:
        return make(), []
    except Problem as problem:
        words = " ".join(filter(None, (f"{problem.detail}.", problem.hint)))
        return None, [Reason(message=words if problem.hint else problem.detail, code=problem.code)]
