"""The part of the plan that is about VMs: which are created, changed, restarted, started, stopped. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from thimble.contract.document import Document, VmEntry
from thimble.contract.vm import (
    Applies,
    DiskSpec,
    Intent,
    NicSpec,
    PowerState,
    StopRequest,
    VmChange,
    VmCreate,
    fields,
)
from thimble.core.problem import Code
from thimble.core.units import show_size
from thimble.document.facts import Facts, VmFacts
from thimble.document.positions import Path
from thimble.document.rules import creation
from thimble.document.steps import LOCAL, Ask, Blocker, Effect
from thimble.vm.record import change, lifecycle, rules

replace = msgspec.structs.replace


def vms(document: Document, facts: Facts) -> Iterator[Effect | Blocker]:
    """Stops come first: they make room for what is started."""
    there = {vm.record.spec.name: vm for vm in facts.vms}
    found: list[Effect | Blocker] = []
    for number, entry in enumerate(document.vm):
        at: Path = ("vm", number)
        old = there.get(entry.name)
        found += _new(entry, at) if old is None else _known(entry, old, at)
    stops = [
        one for one in found if isinstance(one, Effect) and [ask.verb for ask in one.asks] == ["vm.stop"]
    ]
    yield from stops
    yield from (one for one in found if one not in stops)


def _new(entry: VmEntry, at: Path) -> Iterator[Effect]:
    disks = [f"{show_size(disk.size_bytes)} disk" for disk in entry.disks if disk.size_bytes]
    with_ = f" with a {' and a '.join(disks)}" if disks else ""
    ask = Ask(verb="vm.create", input=creation(entry))
    yield _effect(f"creates VM {entry.name}{with_}", entry, at, ask)
    if entry.state is Intent.RUNNING:
        yield _start(entry, at)


def _known(entry: VmEntry, old: VmFacts, at: Path) -> Iterator[Effect | Blocker]:
    if old.state is PowerState.DELETING:
        yield Blocker(at=at, message=f"the VM {entry.name} is just being deleted: try again when it is gone")
        return
    have = change.complete(old.record, old.home)
    want = completed(entry, have)
    blockers = list(_fixed(entry, want, have, at))
    yield from blockers
    if blockers:
        return
    live = old.state in lifecycle.LIVE
    stop = entry.state is Intent.STOPPED and (live or old.record.noted.intent is Intent.RUNNING)
    if stop:
        yield _stop(entry, at)
    different = [name for name in VmChange.__struct_fields__ if getattr(want, name) != getattr(have, name)]
    pending = old.pending
    if different:
        asked = VmChange(**{name: getattr(want, name) for name in different})
        words = ", ".join(_words(name, have, want) for name in different)
        ask = Ask(verb="vm.change", path={"vm": entry.name}, input=asked)
        yield _effect(f"changes VM {entry.name}: {words}", entry, at, ask)
        if old.running is not None:
            pending = change.waiting(old.running, old.record, want)
    if entry.state is Intent.RUNNING:
        yield from _to_running(entry, old, pending, at, live=live)


def _to_running(
    entry: VmEntry, old: VmFacts, pending: tuple[str, ...], at: Path, *, live: bool
) -> Iterator[Effect]:
    if not live:
        yield _start(entry, at)
    elif pending:
        why = ", ".join(pending)
        path = {"vm": entry.name}
        asks = (Ask(verb="vm.stop", path=path, input=StopRequest()), Ask(verb="vm.start", path=path))
        yield _effect(f"restarts VM {entry.name} ({why})", entry, at, *asks)
    elif old.state is PowerState.PAUSED:
        yield _effect(
            f"lets VM {entry.name} run on", entry, at, Ask(verb="vm.resume", path={"vm": entry.name})
        )


def _start(entry: VmEntry, at: Path) -> Effect:
    return _effect(f"starts VM {entry.name}", entry, at, Ask(verb="vm.start", path={"vm": entry.name}))


def _stop(entry: VmEntry, at: Path) -> Effect:
    ask = Ask(verb="vm.stop", path={"vm": entry.name}, input=StopRequest())
    return _effect(f"shuts VM {entry.name} down", entry, at, ask)


def _effect(what: str, entry: VmEntry, at: Path, *asks: Ask) -> Effect:
    return Effect(what=what, subject=f"vm {entry.name}", at=at, asks=asks)


def _fixed(entry: VmEntry, want: VmCreate, have: VmCreate, at: Path) -> Iterator[Blocker]:
    for name in fields(Applies.NEVER):
        if name != "datastore" and getattr(want, name) != getattr(have, name):
            message = f"the {name} of a VM is for life: this one has {getattr(have, name)}"
            yield Blocker(at=(*at, name), message=message)
    if entry.datastore and entry.datastore != have.datastore:
        message = f"the VM {entry.name} is on {have.datastore} and cannot be moved yet"
        yield Blocker(at=(*at, "datastore"), message=message, code=Code.UNSUPPORTED)
    old = {disk.name: disk for disk in have.disks}
    for number, disk in enumerate(want.disks):
        for field, message in _fixed_of_disk(disk, old[disk.name]) if disk.name in old else ():
            yield Blocker(at=(*at, "disks", number, field), message=message)


def _fixed_of_disk(want: DiskSpec, have: DiskSpec) -> Iterator[tuple[str, str]]:
    """(field, why) for all that a disk of this name cannot become."""
    new = "or give it another name, for a new disk"
    if want.volume != have.volume:
        yield "volume", f"the disk {want.name} is {have.volume or 'one of its own'}: write that, {new}"
        return
    if want.format is not have.format:
        yield "format", f"the disk {want.name} is {have.format}: write that, {new}"
    if want.size_bytes != have.size_bytes:
        message = f"the disk {want.name} has {have.size_bytes} bytes, and that cannot be changed yet"
        yield "size_bytes", f"{message}: write that, {new}"
    if want.image != have.image:
        was = f"was copied from {have.image}" if have.image else "was made empty"
        yield "image", f"the disk {want.name} {was}: write that, {new}"


def completed(entry: VmEntry, have: VmCreate) -> VmCreate:
    """What `entry` asks for, with what it leaves open (MACs, sizes, where it is) as the VM has it."""
    want = rules.normalise(replace(creation(entry), datastore=have.datastore), LOCAL)
    disks = {disk.name: disk for disk in have.disks}
    nics = {nic.name: nic for nic in have.nics}
    return replace(
        want,
        disks=tuple(_disk(disk, disks.get(disk.name), have.datastore) for disk in want.disks),
        nics=tuple(_nic(nic, nics.get(nic.name)) for nic in want.nics),
    )


def _disk(want: DiskSpec, have: DiskSpec | None, home: str) -> DiskSpec:
    if have is None:
        return want
    if want.volume is not None:
        same = have.volume is not None and _ref(want.volume, home) == _ref(have.volume, home)
        return replace(have, bus=want.bus, read_only=want.read_only) if same else want
    image = (
        have.image if want.image is None or _ref(want.image, home) == _ref(have.image, home) else want.image
    )
    return replace(want, image=image, size_bytes=want.size_bytes or have.size_bytes)


def _nic(want: NicSpec, have: NicSpec | None) -> NicSpec:
    return want if have is None or want.mac is not None else replace(want, mac=have.mac)


def _ref(ref: str | None, home: str) -> str | None:
    return ref if ref is None or "/" in ref else f"{home}/{ref}"


def _words(name: str, have: VmCreate, want: VmCreate) -> str:
    old, new = getattr(have, name), getattr(want, name)
    if name == "memory_mib":
        return f"memory {old} → {new} MiB"
    if isinstance(new, bool):
        return f"{name} {'on' if new else 'off'}"
    if isinstance(new, int | str) and len(str(new)) < 40:
        return f"{name} {old} → {new}"
    return name
