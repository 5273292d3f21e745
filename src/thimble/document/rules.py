"""What is wrong with a document that the types alone do not show: names, references, combinations. Pure.

Knows nothing of the host: what depends on the host is checked by `plan` and by the services.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from thimble.contract.document import Document, VmEntry
from thimble.contract.network import SwitchKind
from thimble.contract.storage import DatastoreKind
from thimble.contract.vm import VmCreate
from thimble.core.ids import name_reasons
from thimble.core.problem import Reason
from thimble.document.decode import Fault
from thimble.document.positions import Path
from thimble.document.steps import LOCAL
from thimble.host.rules import management_reasons, syslog_reasons, time_reasons
from thimble.network import rules as network_rules
from thimble.storage import kinds
from thimble.storage import rules as storage_rules
from thimble.vm.record import rules as vm_rules
from thimble.vm.record.view import HIDDEN

#: A host on which everything has room, for the rules that would ask for its size.
_ANY_HOST = vm_rules.HostFacts(cpus=255, memory_bytes=1 << 60, memory_available_bytes=1 << 60, accel="kvm")
_DISK = re.compile(r"(serial|wwn):\S(.*\S)?|/dev/\S+")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


def faults(document: Document) -> list[Fault]:
    """Every mistake, in the order of the document's parts."""
    return [
        *_host(document),
        *_people(document),
        *_update(document),
        *_install(document),
        *_datastores(document),
        *_switches(document),
        *_vms(document),
    ]


def steps(path: str) -> Path:
    """`$.disks[0].name` as (`disks`, 0, `name`)."""
    return tuple([name or int(number) for name, number in _STEP.findall(path.removeprefix("$"))])


def below(at: Path, reasons: Iterable[Reason]) -> list[Fault]:
    """Reasons about one part of the document, which is at `at`, as faults of the whole."""
    return [Fault(path=(*at, *steps(reason.path)), message=reason.message) for reason in reasons]


def creation(entry: VmEntry) -> VmCreate:
    """The VM of `entry` as it would be created, stopped."""
    return VmCreate(**{name: getattr(entry, name) for name in entry.__struct_fields__ if name != "state"})


def _host(document: Document) -> Iterator[Fault]:
    if document.host:
        yield from below(("host",), name_reasons(document.host.name, "$.name"))
    if document.management:
        yield from below(("management",), management_reasons(document.management))
    if document.time:
        if not document.time.servers:
            yield Fault(path=("time", "servers"), message="name at least one server, or leave [time] out")
        yield from below(("time",), time_reasons(document.time.servers, "$.servers"))
    if document.log:
        yield from below(("log",), syslog_reasons(document.log.syslog, "$.syslog"))


def _people(document: Document) -> Iterator[Fault]:
    yield from _names("user", [user.name for user in document.user])
    yield from _names("token", [token.name for token in document.token])


def _update(document: Document) -> Iterator[Fault]:
    update = document.update
    if update is None:
        return
    if update.url and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", update.url):
        yield Fault(path=("update", "url"), message="this is no address such as https://host/thimble.efi")
    for number, text in enumerate(update.trust):
        if why := _certificate(text):
            yield Fault(path=("update", "trust", number), message=why)


def _certificate(text: str) -> str:
    import base64

    lines = text.strip().splitlines()
    if "PRIVATE KEY" in text:
        return "this is a private key: write the certificate instead, and keep the key to yourself"
    if (
        len(lines) < 3
        or lines[0] != "-----BEGIN CERTIFICATE-----"
        or lines[-1] != "-----END CERTIFICATE-----"
    ):
        return "one certificate in PEM belongs here, from -----BEGIN CERTIFICATE----- to its END"
    try:
        data = base64.b64decode("".join(lines[1:-1]), validate=True)
    except ValueError:
        data = b""
    return "" if data[:1] == b"\x30" else "the lines between BEGIN and END are no certificate"


def _install(document: Document) -> Iterator[Fault]:
    install = document.install
    if install is None:
        return
    words = "a disk is serial:…, wwn:… or a path below /dev"
    for field in ("disk", "mirror"):
        value = getattr(install, field)
        if value and value != "largest" and not _DISK.fullmatch(value):
            yield Fault(path=("install", field), message=f"{words}, or largest")
    if install.mirror and not install.disk:
        yield Fault(path=("install", "mirror"), message="a mirror needs a disk beside it")
    if install.mirror and install.mirror == install.disk:
        yield Fault(path=("install", "mirror"), message="the mirror must be another disk")
    for number, value in enumerate(install.erase):
        if not _DISK.fullmatch(value):
            yield Fault(path=("install", "erase", number), message=words)


def _datastores(document: Document) -> Iterator[Fault]:
    yield from _names("datastore", [store.name for store in document.datastore])
    for number, store in enumerate(document.datastore):
        at: Path = ("datastore", number)
        if store.name == LOCAL:
            yield Fault(path=(*at, "name"), message="the datastore local is always there: leave it out")
        if store.kind is DatastoreKind.DISK and store.device:
            if not _DISK.fullmatch(store.device):
                yield Fault(path=(*at, "device"), message="write serial:…, wwn:… or a path below /dev")
            store = msgspec.structs.replace(store, device="/dev/disk")
        reasons = kinds.reasons(store, 1 << 60)
        yield from below(at, (reason for reason in reasons if reason.path != "$.name"))


def _switches(document: Document) -> Iterator[Fault]:
    yield from _names("switch", [switch.name for switch in document.switch])
    ports: dict[tuple[str, int], str] = {}
    for number, switch in enumerate(document.switch):
        at: Path = ("switch", number)
        asked = msgspec.structs.replace(switch, forwards=())
        reasons = network_rules.create_reasons(asked, None)
        yield from below(at, (reason for reason in reasons if reason.path != "$.name"))
        if switch.forwards and switch.kind is not SwitchKind.NAT:
            yield Fault(path=(*at, "forwards"), message="forwards go with kind nat")
        for n, forward in enumerate(switch.forwards):
            key = (forward.protocol, forward.port)
            if key in ports:
                message = f"{forward.protocol} port {forward.port} is forwarded by {ports[key]} already"
                yield Fault(path=(*at, "forwards", n, "port"), message=message)
            ports[key] = switch.name


def _vms(document: Document) -> Iterator[Fault]:
    yield from _names("vm", [vm.name for vm in document.vm])
    volumes: dict[str, str] = {}
    for number, entry in enumerate(document.vm):
        at: Path = ("vm", number)
        want = vm_rules.normalise(creation(entry), LOCAL)
        reasons = vm_rules.check(want, _ANY_HOST)
        yield from below(at, (reason for reason in reasons if reason.path != "$.name"))
        for n, disk in enumerate(want.disks):
            path: Path = (*at, "disks", n)
            yield from below((), storage_rules.disk_reasons(disk, dollar(path)))
            if disk.volume is None and disk.image is None and disk.size_bytes is None:
                message = "a disk needs one of volume, image and size_bytes"
                yield Fault(path=path, message=message, at_key=True)
            elif disk.size_bytes is not None:
                yield from below(
                    (), storage_rules.size_reasons(disk.size_bytes, dollar((*path, "size_bytes")))
                )
            if disk.volume:
                ref = disk.volume if "/" in disk.volume else f"{want.datastore}/{disk.volume}"
                if volumes.setdefault(ref, entry.name) != entry.name:
                    message = f"{ref} is a disk of {volumes[ref]} already"
                    yield Fault(path=(*path, "volume"), message=message)
        if entry.seed and HIDDEN in (entry.seed.password_hash, entry.seed.user_data):
            message = f"{HIDDEN} stands for a value that the API does not show: write it out"
            yield Fault(path=(*at, "seed"), message=message)


def dollar(path: Path) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _names(part: str, names: list[str]) -> Iterator[Fault]:
    seen: set[str] = set()
    for number, name in enumerate(names):
        at: Path = (part, number, "name")
        yield from below((), name_reasons(name, dollar(at)))
        if name in seen:
            yield Fault(path=at, message=f"there is a {part} {name!r} above already")
        seen.add(name)
