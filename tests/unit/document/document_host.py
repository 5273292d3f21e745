"""A host as facts, on which a plan's effects can be carried out: what the services do, on paper."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from thimble.contract.document import TokenEntry, UserEntry
from thimble.contract.host import Role
from thimble.contract.management import ManagementSettings
from thimble.contract.network import SwitchKind
from thimble.contract.storage import DatastoreKind
from thimble.contract.vm import DiskSpec, Intent, PowerState, VmCreate, VmSpec
from thimble.document.facts import DeviceFacts, Facts, VmFacts
from thimble.document.plan import Plan, plan
from thimble.document.read import read
from thimble.document.steps import Ask
from thimble.network.records import SwitchRecord
from thimble.storage.contents import Contents
from thimble.storage.records import DatastoreRecord
from thimble.sys.disks import Disk
from thimble.vm.record import assign, change, rules
from thimble.vm.record.spec import Noted, Phase, Running, VmRecord

replace = msgspec.structs.replace
HASH = f"scrypt$14$8$1${'ab' * 16}${'cd' * 32}"
BLANK = Contents()
DATA = Contents(kind="ext4", label="thimble-data", uuid="u-1")

FRESH = Facts(
    name="thimble",
    managed=True,
    users=(UserEntry(name="admin", role=Role.ADMIN),),
    datastores={"local": DatastoreRecord(kind=DatastoreKind.DIRECTORY)},
    switches={
        "nat": SwitchRecord(kind=SwitchKind.NAT, bridge="tb-1", subnet="192.168.1.0/24", chosen=True),
        "uplink": SwitchRecord(kind=SwitchKind.BRIDGED, bridge="uplink", uplink="eno1", adopted=True),
    },
    links={"3c:ec:ef:00:00:01": "eno1", "3c:ec:ef:00:00:02": "eno2"},
)


def planned(text: str, facts: Facts = FRESH) -> Plan:
    return plan(read(f"format = 1\n{text}").document, facts)


def effects(text: str, facts: Facts = FRESH) -> list[str]:
    return [effect.what for effect in planned(text, facts).effects]


def blockers(text: str, facts: Facts = FRESH) -> list[str]:
    return [blocker.message for blocker in planned(text, facts).blockers]


def after(text: str, facts: Facts = FRESH) -> Facts:
    """The host when all effects have happened."""
    found = planned(text, facts)
    assert not found.blockers, found.blockers
    for effect in found.effects:
        for ask in effect.asks:
            facts = done(ask, facts)
    return facts


def entropy(count: int) -> bytes:
    entropy.calls += 1  # type: ignore[attr-defined]
    return entropy.calls.to_bytes(count, "big")  # type: ignore[attr-defined]


entropy.calls = 0  # type: ignore[attr-defined]


def done(ask: Ask, facts: Facts) -> Facts:
    """The host after one verb."""
    given: Any = ask.input
    match ask.verb:
        case "host.change":
            given = {f: v for f in ("name", "syslog") if (v := getattr(given, f)) is not msgspec.UNSET}
            return replace(facts, **given)
        case "management.change":
            asked = {
                f: v
                for f in ManagementSettings.__struct_fields__
                if (v := getattr(given, f)) is not msgspec.UNSET
            }
            return replace(facts, management=replace(facts.management, **asked), asked=True)
        case "deploy.change":
            fields = msgspec.structs.asdict(given).items()
            asked = {name: value for name, value in fields if value is not msgspec.UNSET}
            return replace(facts, policy=replace(facts.policy, **asked))
        case "user.create" | "user.change":
            return replace(facts, users=_user(ask, facts))
        case "token.create":
            new = TokenEntry(
                name=given.name, user=given.user, role=given.role, sha256=given.sha256,
                expires=datetime.fromtimestamp(given.expires, UTC),
            )  # fmt: skip
            return replace(facts, tokens=(*facts.tokens, new))
        case "token.delete":
            return replace(facts, tokens=tuple(t for t in facts.tokens if t.name != ask.path["token"]))
        case "datastore.create":
            uuid = "u-1" if given.kind is DatastoreKind.DISK else ""
            record = DatastoreRecord(
                kind=given.kind,
                path=given.path,
                device=given.device,
                uuid=uuid,
                size_bytes=given.size_bytes or 0,
            )
            return _with_datastore(facts, given.name, record)
        case "switch.create":
            record = SwitchRecord(
                kind=given.kind, bridge="tb", uplink=given.uplink,
                subnet=given.subnet or "192.168.9.0/24", chosen=not given.subnet,
            )  # fmt: skip
            if given.kind is not SwitchKind.NAT:
                record = replace(record, subnet="", chosen=False)
            return replace(facts, switches={**facts.switches, given.name: record})
        case "switch.change":
            name = ask.path["switch"]
            record = replace(facts.switches[name], forwards=given.forwards)
            return replace(facts, switches={**facts.switches, name: record})
        case _:
            return replace(facts, vms=_vms(ask, facts))


def _user(ask: Ask, facts: Facts) -> tuple[UserEntry, ...]:
    given: Any = ask.input
    name = ask.path.get("user") or given.name
    old = next((user for user in facts.users if user.name == name), UserEntry(name=name))
    secret = old.password_hash if given.password_hash is msgspec.UNSET else given.password_hash
    new = UserEntry(name=name, role=given.role, password_hash=secret)
    return (*(user for user in facts.users if user.name != name), new)


def _with_datastore(facts: Facts, name: str, record: DatastoreRecord) -> Facts:
    facts = replace(facts, datastores={**facts.datastores, name: record})
    if record.kind is not DatastoreKind.DISK:
        return facts
    holds = {
        key: replace(one, contents=DATA) if one.device == record.device else one
        for key, one in facts.devices.items()
    }
    disk = Disk(device=record.device, serial="S1")
    return replace(facts, devices=holds, stores={name: disk})


def _vms(ask: Ask, facts: Facts) -> tuple[VmFacts, ...]:
    if ask.verb == "vm.create":
        assert isinstance(ask.input, VmCreate)
        record = vm_record(rules.normalise(ask.input, facts.default))
        return (
            *facts.vms,
            VmFacts(home=ask.input.datastore or facts.default, record=record, state=PowerState.STOPPED),
        )
    return tuple(_vm(ask, vm) if vm.record.spec.name == ask.path["vm"] else vm for vm in facts.vms)


def vm_record(want: VmCreate) -> VmRecord:
    want = replace(want, disks=tuple(_full(disk) for disk in want.disks))
    cards = assign.cards(want.nics, None, set(), set(), entropy, lambda *_: "")
    return assign.created(
        want, uid=100_000, now=1.0, entropy=entropy, cards=cards, sizes=_sizes(want),
        noted=Noted(phase=Phase.READY),
    )  # fmt: skip


def _full(disk: DiskSpec) -> DiskSpec:
    short = disk.volume is not None and "/" not in disk.volume
    return replace(disk, volume=f"local/{disk.volume}") if short else disk


def _sizes(want: VmSpec) -> dict[str, int]:
    return {disk.name: disk.size_bytes or 4096 for disk in want.disks}


def _intending(record: VmRecord, intent: Intent) -> VmRecord:
    return replace(record, noted=replace(record.noted, intent=intent))


def _vm(ask: Ask, vm: VmFacts) -> VmFacts:
    record = vm.record
    match ask.verb:
        case "vm.start":
            record = _intending(record, Intent.RUNNING)
            running = Running(record=record.definition, ports=8, accel="kvm", started=1.0)
            return replace(vm, record=record, state=PowerState.RUNNING, running=running, pending=())
        case "vm.stop":
            record = _intending(record, Intent.STOPPED)
            return replace(vm, record=record, state=PowerState.STOPPED, running=None, pending=())
        case "vm.resume":
            return replace(vm, state=PowerState.RUNNING)
        case "vm.change":
            want = rules.normalise(change.asked(record, ask.input, vm.home), vm.home)  # type: ignore[arg-type]
            spec = change.merged(record.spec, replace(want, disks=tuple(_full(disk) for disk in want.disks)))
            cards = assign.cards(want.nics, record, set(), set(), entropy, lambda *_: "")
            sizes = _sizes(spec) | {k: v for k, v in record.assigned.disks.items() if v}
            given = replace(record.assigned, nics=cards, disks=sizes)
            new = assign.placed(replace(record, spec=spec, assigned=given))
            pending = change.plan(vm.running, new.definition).pending if vm.running else ()
            return replace(vm, record=new, pending=pending)
    raise AssertionError(ask.verb)


def with_device(name: str, device: str, contents: Contents = BLANK, *, erasable: bool = False) -> Facts:
    return replace(FRESH, devices={name: DeviceFacts(device=device, contents=contents, erasable=erasable)})


def with_management(**fields: Any) -> Facts:
    return replace(FRESH, management=ManagementSettings(**fields), asked=True)
