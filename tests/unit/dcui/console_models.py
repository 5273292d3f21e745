"""A host to look at, and a console that asks nobody: answers are given by the tests."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from thimble.contract.host import Host
from thimble.contract.storage import Datastore, DatastoreKind
from thimble.contract.vm import Intent, PowerState, VmSummary
from thimble.core.problem import Problem
from thimble.dcui.model import (
    Answer,
    Ask,
    Effect,
    Failed,
    KeyPress,
    LocalFacts,
    Message,
    Model,
    SignedIn,
    Tick,
)
from thimble.dcui.update import update

GIB = 1 << 30
HOST = Host(
    name="rack3-node7",
    version="0.1.0",
    hosted=False,
    accel="kvm",
    accel_why="",
    kernel="6.12.0",
    qemu="10.0.2",
    cpus=32,
    cpu_model="AMD EPYC 7313P 16-Core Processor",
    memory_bytes=256 * GIB,
    memory_available_bytes=97 * GIB,
    uptime_s=191_000.0,
    ready_s=3.2,
    load=(11.4, 10.0, 9.0),
    addresses=("10.0.0.7", "2001:db8::7"),
    state="partition",
    state_where="/dev/sda3",
    warnings=("datastore bulk: 94 % of it is used",),
    vms=12,
    vms_running=9,
    certificate_sha256="3f9a" * 16,
)
STORES = (
    Datastore(
        name="local",
        rev=1,
        kind=DatastoreKind.DIRECTORY,
        where="/var/lib/thimble/datastores/local",
        mounted=True,
        why="",
        durable=True,
        default=True,
        size_bytes=480 * GIB,
        free_bytes=301 * GIB,
    ),
    Datastore(
        name="bulk",
        rev=1,
        kind=DatastoreKind.DISK,
        where="/dev/sdb",
        mounted=True,
        why="",
        durable=True,
        default=False,
        size_bytes=8000 * GIB,
        free_bytes=480 * GIB,
    ),
)
LOCAL = LocalFacts(
    hostname="rack3-node7",
    addresses=("10.0.0.7",),
    state="partition /dev/sda3",
    managed=True,
    nics=("3c:ec:ef:12:34:56", "3c:ec:ef:12:34:57"),
    last_words=("MemoryError", "the agent fell"),
    document="/run/thimble/document.toml",
    document_source="/dev/sdc1 (THIMBLE)",
)


def vm(number: int, name: str, state: PowerState, *allowed: str, ip: tuple[str, ...] = ()) -> VmSummary:
    return VmSummary(
        id=f"vm-{number:08}",
        rev=1,
        name=name,
        vcpus=2,
        memory_mib=2048,
        intent=Intent.RUNNING,
        state=state,
        why="",
        ip=ip,
        allowed=allowed,
    )


VMS = (
    vm(
        1,
        "web1",
        PowerState.RUNNING,
        "stop",
        "kill",
        "reset",
        "pause",
        "save",
        "console",
        ip=("192.168.77.10",),
    ),
    vm(2, "database", PowerState.SAVED, "start"),
    vm(3, "build-slave-with-a-long-name", PowerState.STOPPED, "start", "delete"),
)


def home() -> Model:
    """The status screen, with everything known."""
    return Model(
        version="0.1.0",
        local=LOCAL,
        host=HOST,
        datastores=STORES,
        now=100.0,
        clock=1_800_000_000.0,
        last_key=100.0,
        refreshed=100.0,
    )


class FakeConsole:
    """A console in a test: keys in, effects out, answers back."""

    def __init__(self, model: Model | None = None) -> None:
        self.model = model or home()
        self.effects: list[Effect] = []

    def send(self, message: Message) -> None:
        self.model, effects = update(self.model, message)
        self.effects += effects

    def keys(self, *names: str) -> None:
        for name in names:
            self.send(KeyPress(name))

    def types(self, text: str) -> None:
        self.keys(*text)

    def passes(self, seconds: float) -> None:
        self.send(Tick(self.model.now + seconds, self.model.clock + seconds))

    def asked(self, verb: str) -> Ask:
        """The last question of this verb."""
        found = [one for one in self.effects if isinstance(one, Ask) and one.verb == verb]
        assert found, f"nobody asked {verb}: {self.effects}"
        return found[-1]

    def answers(self, verb: str, value: Any) -> None:
        self.send(Answer(self.asked(verb), value))

    def fails(self, verb: str, problem: Problem) -> None:
        self.send(Failed(self.asked(verb), problem))


def signed_in() -> FakeConsole:
    console = FakeConsole(replace(home(), session=SignedIn(user="admin", role="admin", token="t0ken")))
    console.keys("enter")
    return console
