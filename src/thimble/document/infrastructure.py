"""The part of the plan that is about where things are: datastores, switches, port forwards. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from thimble.contract.document import Document
from thimble.contract.network import Forward, SwitchChange, SwitchCreate, SwitchKind
from thimble.contract.storage import DatastoreCreate, DatastoreKind
from thimble.core.units import show_size
from thimble.document.facts import Facts
from thimble.document.positions import Path
from thimble.document.steps import UPLINK, Ask, Blocker, Effect
from thimble.network.records import SwitchRecord
from thimble.storage.contents import LABEL


def datastores(document: Document, facts: Facts, warnings: list[str]) -> Iterator[Effect | Blocker]:
    for number, store in enumerate(document.datastore):
        at: Path = ("datastore", number)
        if store.name in facts.datastores:
            yield from _known_datastore(store, facts, at, warnings)
            continue
        what, wanted = f"creates the datastore {store.name} in {store.path}", store
        if store.kind is DatastoreKind.RAM:
            what = f"creates the datastore {store.name} of {show_size(store.size_bytes or 0)} of memory"
        if store.kind is DatastoreKind.DISK:
            found = _disk(store, facts)
            if isinstance(found, str):
                yield Blocker(at=(*at, "device"), message=found)
                continue
            what, wanted = found
        ask = Ask(verb="datastore.create", input=wanted)
        yield Effect(what=what, subject=f"datastore {store.name}", at=at, asks=(ask,))


def _disk(store: DatastoreCreate, facts: Facts) -> tuple[str, DatastoreCreate] | str:
    """(words, request), or why not. A datastore that is found is taken over, never formatted."""
    found = facts.devices.get(store.device)
    if found is None:
        return f"there is no disk {store.device} on this host"
    where = store.device if store.device == found.device else f"{store.device} ({found.device})"
    kind, label = found.contents.kind, found.contents.label
    if kind == "ext4" and label == LABEL:
        request = msgspec.structs.replace(store, device=found.device, format=False, erase=False)
        return f"takes over the datastore on {where} as {store.name}", request
    if not store.format:
        what = f"holds {kind}" if kind else "is blank"
        return f"{where} {what}: write format = true to make a datastore of it"
    if kind and not store.erase:
        return f"{where} holds {kind}: write erase = true to lose that"
    if kind and not found.erasable:
        return f"{where} holds {kind} and is not named in install.erase: name it there to lose that"
    request = msgspec.structs.replace(store, device=found.device, erase=bool(kind))
    loss = f"erases {where}, which holds {kind}, and" if kind else "formats " + where + " and"
    return f"{loss} creates the datastore {store.name} on it", request


def _known_datastore(
    store: DatastoreCreate, facts: Facts, at: Path, warnings: list[str]
) -> Iterator[Blocker]:
    old = facts.datastores[store.name]
    same = store.kind is old.kind
    if same and store.kind is DatastoreKind.DIRECTORY:
        same = store.path.rstrip("/") == old.path.rstrip("/")
    elif same and store.kind is DatastoreKind.RAM:
        same = store.size_bytes == old.size_bytes
    elif same:
        found = facts.devices.get(store.device)
        if found is None:
            warnings.append(f"the disk {store.device} of the datastore {store.name} is not there")
        same = found is None or store.device == old.device or found.contents.uuid == old.uuid
    if not same:
        message = f"the datastore {store.name} is another one: forget it first, or give this one another name"
        yield Blocker(at=at, message=message)


def uplink(switch: SwitchCreate, facts: Facts) -> str:
    """The link that the document's `uplink` means: a MAC names the card that has it."""
    return facts.links.get(switch.uplink.lower(), switch.uplink)


def switches(document: Document, facts: Facts) -> Iterator[Effect | Blocker]:
    for number, switch in enumerate(document.switch):
        at: Path = ("switch", number)
        old = facts.switches.get(switch.name)
        if old is not None:
            yield from _known_switch(switch, old, facts, at)
            continue
        where = {
            SwitchKind.NAT: f"with the subnet {switch.subnet}"
            if switch.subnet
            else "with a subnet of its own",
            SwitchKind.BRIDGED: f"on port {switch.uplink}",
            SwitchKind.ISOLATED: "without a way out",
        }[switch.kind]
        probe = msgspec.structs.replace(switch, uplink=uplink(switch, facts))
        wanted = msgspec.structs.replace(probe, forwards=())  # their VMs may not be there yet
        ask = Ask(verb="switch.create", input=wanted, probe=probe)
        what = f"creates switch {switch.name} {where}"
        yield Effect(what=what, subject=f"switch {switch.name}", at=at, asks=(ask,))


def _known_switch(switch: SwitchCreate, old: SwitchRecord, facts: Facts, at: Path) -> Iterator[Blocker]:
    wrong = ""
    if switch.kind is not old.kind:
        wrong = f"is {old.kind}"
    elif switch.subnet and switch.subnet != old.subnet:
        wrong = f"has the subnet {old.subnet}"
    elif switch.kind is SwitchKind.BRIDGED and not old.adopted and uplink(switch, facts) != old.uplink:
        wrong = f"is on port {old.uplink}"
    elif switch.kind is SwitchKind.BRIDGED and old.adopted and switch.name != UPLINK:
        wrong = f"is on port {old.bridge}" if uplink(switch, facts) not in (old.bridge, old.uplink) else ""
    if wrong:
        message = f"the switch {switch.name} {wrong}, and that cannot be changed: delete it first"
        yield Blocker(at=at, message=message)


def forwards(document: Document, facts: Facts) -> Iterator[Effect]:
    """After the VMs, for they lead to them."""
    for number, switch in enumerate(document.switch):
        old = facts.switches.get(switch.name)
        had = old.forwards if old else ()
        if switch.kind is not SwitchKind.NAT or set(switch.forwards) == set(had):
            continue
        new = [f for f in switch.forwards if f not in had]
        words = [f"hands {_port(f)} of the host to {f.vm}, port {f.to_port}" for f in new]
        words += [f"no longer hands on {_port(f)}" for f in had if f not in switch.forwards]
        change = SwitchChange(forwards=switch.forwards)
        ask = Ask(verb="switch.change", path={"switch": switch.name}, input=change)
        subject = f"switch {switch.name}"
        yield Effect(what=", ".join(words), subject=subject, at=("switch", number), asks=(ask,))


def _port(forward: Forward) -> str:
    return f"{forward.protocol} port {forward.port}"
