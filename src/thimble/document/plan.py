"""What it takes to make a host what a document says: effects in words, each with the verbs that do it. Pure.

Order: what others need comes first, and what could cut the host off comes last.

    host ▸ keys ▸ datastores ▸ switches ▸ VMs ▸ port forwards ▸ users ▸ tokens ▸ management network

Invariant: planning again after all effects yields none. Nothing is deleted: what the document does not
mention is told as drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import msgspec

from thimble.contract.deploy import PolicyChange, UpdatePolicy
from thimble.contract.document import Document, TokenEntry, UserEntry
from thimble.contract.host import HostChange, TokenCreate, UserChange, UserCreate
from thimble.contract.management import ManagementChange, ManagementNet, ManagementSettings
from thimble.contract.network import Forward, SwitchChange, SwitchCreate, SwitchKind
from thimble.contract.storage import DatastoreCreate, DatastoreKind
from thimble.contract.verbs import BY_NAME
from thimble.core.problem import Code
from thimble.core.units import show_size
from thimble.document.facts import Facts
from thimble.document.locate import Path
from thimble.network.records import SwitchRecord
from thimble.storage.plan import LABEL

LOCAL = "local"
#: The switch that PID 1 makes over the management network's card.
UPLINK = "uplink"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a service's verb. `probe`: what a dry run is asked instead of `input`."""

    verb: str
    path: dict[str, str] = {}
    input: msgspec.Struct | None = None
    probe: msgspec.Struct | None = None


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """`at`: the part of the document that wants it; reasons of its verbs are about fields below that."""

    what: str
    subject: str
    at: Path
    asks: tuple[Ask, ...]


class Blocker(msgspec.Struct, frozen=True, kw_only=True):
    at: Path
    message: str
    code: Code = Code.CONFLICT


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    effects: tuple[Effect, ...]
    blockers: tuple[Blocker, ...]
    warnings: tuple[str, ...]
    drift: tuple[str, ...]


def plan(document: Document, facts: Facts) -> Plan:
    """How `facts` become what `document` says."""
    from thimble.document import change

    warnings: list[str] = []
    found = [
        *_host(document, facts),
        *_policy(document, facts),
        *_trust(document, facts, warnings),
        *_datastores(document, facts, warnings),
        *_switches(document, facts),
        *change.vms(document, facts),
        *_forwards(document, facts),
        *_users(document, facts),
        *_tokens(document, facts),
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


def _users(document: Document, facts: Facts) -> Iterator[Effect | Blocker]:
    there = {user.name: user for user in facts.users}
    for number, user in enumerate(document.user):
        at: Path = ("user", number)
        old = there.get(user.name)
        if old is not None:
            yield from _changed_user(user, old, at)
        elif user.password_hash is None:
            message = f"the user {user.name} is new and needs a password_hash"
            yield Blocker(at=at, message=message, code=Code.INVALID)
        else:
            wanted = UserCreate(name=user.name, role=user.role, password_hash=user.password_hash)
            ask = Ask(verb="user.create", input=wanted)
            what = f"creates the {user.role} {user.name}"
            yield Effect(what=what, subject=f"user {user.name}", at=at, asks=(ask,))


def _changed_user(user: UserEntry, old: UserEntry, at: Path) -> Iterator[Effect]:
    words = [f"makes {user.name} {user.role}"] if user.role is not old.role else []
    change = UserChange(role=user.role)
    if user.password_hash is not None and user.password_hash != old.password_hash:
        words.append(f"changes the password of {user.name}")
        change = UserChange(role=user.role, password_hash=user.password_hash)
    if words:
        ask = Ask(verb="user.change", path={"user": user.name}, input=change)
        yield Effect(what=", ".join(words), subject=f"user {user.name}", at=at, asks=(ask,))


def _tokens(document: Document, facts: Facts) -> Iterator[Effect]:
    there = {token.name: token for token in facts.tokens}
    for number, token in enumerate(document.token):
        old = there.get(token.name)
        if old is not None and whole_seconds(old) == whole_seconds(token):
            continue
        gone = (Ask(verb="token.delete", path={"token": token.name}),) if old else ()
        wanted = TokenCreate(
            name=token.name,
            role=token.role,
            user=token.user,
            sha256=token.sha256,
            expires=token.expires.timestamp(),
        )
        verb = "replaces" if old else "creates"
        yield Effect(
            what=f"{verb} the token {token.name} of {token.user}, {token.role}",
            subject=f"token {token.name}",
            at=("token", number),
            asks=(*gone, Ask(verb="token.create", input=wanted)),
        )


def whole_seconds(token: TokenEntry) -> tuple[str, str, str, str, int]:
    """What makes one token the same as another."""
    return token.name, token.user, token.role, token.sha256, int(token.expires.timestamp())


def _policy(document: Document, facts: Facts) -> Iterator[Effect]:
    """What [update] leaves out has its default: it is a policy as a whole."""
    if document.update is None:
        return
    wanted = {name: getattr(document.update, name) for name in UpdatePolicy.__struct_fields__}
    asked = {name: value for name, value in wanted.items() if value != getattr(facts.policy, name)}
    if asked:
        words = ", ".join(f"{name} {value or 'none'}" for name, value in asked.items())
        ask = Ask(verb="deploy.change", input=PolicyChange(**asked))
        yield Effect(
            what=f"sets how the host is updated: {words}", subject="updates", at=("update",), asks=(ask,)
        )


def _trust(document: Document, facts: Facts, warnings: list[str]) -> Iterator[Effect]:
    """A certificate is the same whatever stands around it."""
    wanted = document.update.trust if document.update else ()
    if wanted and facts.keys is None:
        warnings.append("update.trust has no effect: this agent takes no updates")
        return
    known = {certificate(text) for text in facts.keys or ()}
    for number, text in enumerate(wanted):
        if certificate(text) in known:
            continue
        known.add(certificate(text))
        name = f"document-{sha256(certificate(text).encode()).hexdigest()[:8]}"
        kind = BY_NAME["key.create"].input
        assert kind is not None
        ask = Ask(verb="key.create", input=kind(name=name, certificate=text))
        what = f"accepts updates signed with the key {name}"
        yield Effect(what=what, subject=f"key {name}", at=("update", "trust", number), asks=(ask,))


def certificate(pem: str) -> str:
    """The certificate itself, as base64 without line ends."""
    body = pem.partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END CERTIFICATE-----")[0]
    return "".join(body.split())


def _datastores(document: Document, facts: Facts, warnings: list[str]) -> Iterator[Effect | Blocker]:
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


def _switches(document: Document, facts: Facts) -> Iterator[Effect | Blocker]:
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


def _forwards(document: Document, facts: Facts) -> Iterator[Effect]:
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
        f"VM {vm.record.name} is not in the document" for vm in facts.vms if vm.record.name not in vms
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
