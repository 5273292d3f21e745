"""The document of a host as it is: what it is restored from, and what another one like it starts with. Pure.

Invariant: planning it on the very same host yields nothing to do. Disks' contents are not in it, nor
passwords made at a first boot and never used.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from thimble.contract.deploy import UpdatePolicy
from thimble.contract.document import Document, HostEntry, LogEntry, TimeEntry, UpdateEntry, VmEntry
from thimble.contract.management import ManagementNet
from thimble.contract.network import SwitchCreate
from thimble.contract.storage import DatastoreCreate, DatastoreKind
from thimble.contract.vm import Autostart, Intent
from thimble.document import toml
from thimble.document.facts import Facts, VmFacts
from thimble.document.steps import LOCAL, UPLINK
from thimble.network.records import SwitchRecord
from thimble.vm.record import change
from thimble.vm.record.spec import Phase

replace = msgspec.structs.replace

_HEAD = """\
# The host document of {name}: `thimble plan FILE` shows what applying it would do.
# It holds hashes of passwords and tokens: keep it to those who run this host.
"""


def text(facts: Facts) -> str:
    """The document as TOML."""
    return _HEAD.format(name=facts.name) + toml.write(tree(document(facts), facts.default))


def document(facts: Facts) -> Document:
    """Everything a document can say of this host."""
    last = facts.last
    policy = {name: getattr(facts.policy, name) for name in UpdatePolicy.__struct_fields__}
    update = UpdateEntry(**policy, trust=facts.own_keys)
    settings = facts.management
    own = (LOCAL, facts.default)
    net = ManagementNet(**{name: getattr(settings, name) for name in ManagementNet.__struct_fields__})
    return Document(
        format=1,
        host=HostEntry(name=facts.name),
        management=net if facts.managed and facts.asked else None,
        time=TimeEntry(servers=settings.ntp) if facts.managed and settings.ntp else None,
        log=LogEntry(syslog=facts.syslog) if facts.syslog else None,
        user=facts.users,
        token=facts.tokens,
        update=None if update == UpdateEntry() else update,
        install=last.install if last else None,
        datastore=tuple(_datastore(name, facts) for name in sorted(facts.datastores) if name not in own),
        switch=tuple(
            _switch(name, record, facts)
            for name, record in sorted(facts.switches.items())
            if not (name == UPLINK and record.adopted)
        ),
        vm=tuple(
            _vm(vm)
            for vm in sorted(facts.vms, key=lambda vm: vm.record.spec.name)
            if vm.record.noted.phase is Phase.READY
        ),
    )


def _datastore(name: str, facts: Facts) -> DatastoreCreate:
    record = facts.datastores[name]
    device = record.device
    if (disk := facts.stores.get(name)) is not None:
        device = disk.lasting_name
    return DatastoreCreate(
        name=name,
        kind=record.kind,
        path=record.path,
        device=device,
        format=record.kind is DatastoreKind.DISK,
        size_bytes=record.size_bytes or None,
    )


def _switch(name: str, record: SwitchRecord, facts: Facts) -> SwitchCreate:
    macs = {link: mac for mac, link in facts.links.items()}
    return SwitchCreate(
        name=name,
        kind=record.kind,
        subnet="" if record.chosen else record.subnet,
        uplink=record.uplink if record.adopted else macs.get(record.uplink, record.uplink),
        forwards=record.forwards,
    )


def _vm(vm: VmFacts) -> VmEntry:
    spec = change.complete(vm.record, vm.home)
    fields = {name: getattr(spec, name) for name in VmEntry.__struct_fields__ if name != "state"}
    return VmEntry(**fields, state=vm.record.noted.intent)


def tree(document: Document, default: str = LOCAL) -> dict[str, Any]:
    """As TOML has it: without what is so by itself. `default`: the datastore of what names none."""
    found = {name: _bare(getattr(document, name)) for name in Document.__struct_fields__}
    for entry, shown in zip(document.vm, found["vm"], strict=True):
        _shorten(entry, shown, default)
    return {name: value for name, value in found.items() if value not in (None, [])}


def _shorten(entry: VmEntry, shown: dict[str, Any], default: str) -> None:
    """What a reader would think anyway, and what holds on this host alone."""
    shown.pop("autostart", None)
    if entry.autostart != Autostart(enabled=entry.state is Intent.RUNNING):
        shown["autostart"] = msgspec.to_builtins(entry.autostart)
    shown["state"] = str(entry.state)
    if shown.get("datastore") == default:
        del shown["datastore"]
    for disk in shown.get("disks", ()):
        if "volume" in disk:
            disk.pop("size_bytes", None)
            disk.pop("format", None)


def _bare(value: Any) -> Any:
    """A struct as a tree, without fields that have their defaults."""
    if isinstance(value, msgspec.Struct):
        given = {}
        for field in msgspec.structs.fields(value):
            one = getattr(value, field.name)
            if field.required or one != field.default:
                given[field.name] = _bare(one)
        return given
    if isinstance(value, tuple):
        return [_bare(one) for one in value]
    return msgspec.to_builtins(value, builtin_types=(datetime,))
