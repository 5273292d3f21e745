"""What it takes to make a host what a document says: effects in words, each with the verbs that do it. Pure.

Order: what others need comes first, and what could cut the host off comes last.

    host ▸ keys ▸ datastores ▸ switches ▸ VMs ▸ port forwards ▸ users ▸ tokens ▸ management network

Invariant: planning again after all effects yields none. Nothing is deleted: what the document does not
mention is reported as drift.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from thimble.contract.document import Document
from thimble.contract.host import HostChange
from thimble.contract.management import ManagementChange, ManagementNet, ManagementSettings
from thimble.document import access, infrastructure
from thimble.document import vms as vm_changes
from thimble.document.facts import Facts
from thimble.document.positions import Path
from thimble.document.steps import LOCAL, UPLINK, Ask, Blocker, Effect


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    effects: tuple[Effect, ...]
    blockers: tuple[Blocker, ...]
    warnings: tuple[str, ...]
    drift: tuple[str, ...]


def plan(document: Document, facts: Facts) -> Plan:
    """How `facts` become what `document` says."""
    warnings: list[str] = []
    found = [
        *_host(document, facts),
        *access.policy(document, facts),
        *access.trust(document, facts, warnings),
        *infrastructure.datastores(document, facts, warnings),
        *infrastructure.switches(document, facts),
        *vm_changes.vms(document, facts),
        *infrastructure.forwards(document, facts),
        *access.users(document, facts),
        *access.tokens(document, facts),
        *_management(document, facts, warnings),
    ]
    return Plan(
        effects=tuple(one for one in found if isinstance(one, Effect)),
        blockers=tuple(one for one in found if isinstance(one, Blocker)),
        warnings=tuple(warnings),
        drift=tuple(_drift(document, facts)),
    )


def _host(document: Document, facts: Facts) -> Iterator[Effect]:
    if document.host and document.host.name != facts.name:
        name = document.host.name
        ask = Ask(verb="host.change", input=HostChange(name=name))
        yield Effect(
            what=f"renames the host {facts.name} to {name}", subject="host", at=("host",), asks=(ask,)
        )
    if document.log and document.log.syslog != facts.syslog:
        target = document.log.syslog
        ask = Ask(verb="host.change", input=HostChange(syslog=target))
        what = f"sends the log to {target}" if target else "sends the log nowhere"
        yield Effect(what=what, subject="host", at=("log",), asks=(ask,))


def _management(document: Document, facts: Facts, warnings: list[str]) -> Iterator[Effect]:
    if document.management is None and document.time is None:
        return
    if not facts.managed:
        warnings.append("[management] and [time] are left alone: another operating system looks after them")
        return
    wanted = wanted_management(document, facts.management)
    asked = {
        field: value
        for field in ManagementSettings.__struct_fields__
        if (value := getattr(wanted, field)) != getattr(facts.management, field)
    }
    if asked:
        shown = [f"{field} {_shown(value)}" for field, value in asked.items()]
        ask = Ask(verb="management.change", input=ManagementChange(**asked))
        what = "sets the management network to " + ", ".join(shown)
        at: Path = ("management",) if document.management else ("time",)
        yield Effect(what=what, subject="management", at=at, asks=(ask,))


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value) or "none"


def wanted_management(document: Document, old: ManagementSettings) -> ManagementSettings:
    """The settings with what the document says of them."""
    net = document.management
    if net is not None:
        fields = {field: getattr(net, field) for field in ManagementNet.__struct_fields__}
        old = msgspec.structs.replace(old, **fields | {"nic": net.nic.lower()})
    return msgspec.structs.replace(old, ntp=document.time.servers) if document.time else old


def _drift(document: Document, facts: Facts) -> Iterator[str]:
    """What is here and not in the document; what every host has is no drift."""
    vms = {vm.name for vm in document.vm}
    yield from (
        f"VM {vm.record.spec.name} is not in the document"
        for vm in facts.vms
        if vm.record.spec.name not in vms
    )
    switches = {switch.name for switch in document.switch}
    for name, record in facts.switches.items():
        own = (name == UPLINK and record.adopted) or (name == "nat" and record.chosen and not record.forwards)
        if name not in switches and not own:
            yield f"switch {name} is not in the document"
    stores = {store.name for store in document.datastore} | {LOCAL, facts.default}
    yield from (f"datastore {name} is not in the document" for name in facts.datastores if name not in stores)
    users = {user.name for user in document.user}
    for user in facts.users if users else ():
        if user.name not in users:
            yield f"user {user.name} is not in the document"
    tokens = {token.name for token in document.token}
    for token in facts.tokens if tokens or users else ():
        if token.name not in tokens:
            yield f"token {token.name} is not in the document"
