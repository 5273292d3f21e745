"""What the verbs of this package stand on: its parts put together, one of them at work at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import msgspec

from thimble.contract.verbs import Started
from thimble.core.problem import Code, Problem
from thimble.deploy import esp, health
from thimble.deploy.devices import Devices
from thimble.deploy.health import Now
from thimble.deploy.image_source import Sources
from thimble.deploy.policy import Policy
from thimble.deploy.slots import Expect
from thimble.deploy.trial import PROVE_S, Proof
from thimble.deploy.trust import KeyService
from thimble.deploy.update import StopGuests, Updates
from thimble.host.pid1 import BootFacts, Init
from thimble.state.events import Events
from thimble.state.tasks import Progress, Tasks, Work
from thimble.storage.service import Storage
from thimble.sys import log


class DeployParts(msgspec.Struct, frozen=True, kw_only=True):
    """What app.py hands over. `ram_vms`: the names of VMs that live in memory only."""

    state: Path
    run: Path
    durable: bool
    hosted: bool
    port: int
    init: Init
    storage: Storage
    tasks: Tasks
    events: Events
    fingerprint: str
    stop_guests: StopGuests
    ram_vms: Callable[[], tuple[str, ...]]


class Desk:
    def __init__(self, parts: DeployParts) -> None:
        if not parts.hosted:
            esp.release(parts.run)  # before anything of ours is mounted: later it would be taken away as well
        self._parts = parts
        self._run = parts.run
        self._busy = ""
        self.keys = KeyService(
            parts.state,
            parts.run / "deploy",
            durable=parts.durable,
            rev=lambda: parts.events.rev,
        )
        self.policy = Policy(parts.state, durable=parts.durable)
        self._sources = Sources(parts.run, parts.storage, lambda: parts.init.words)
        self._devices = Devices(parts.run, lambda: parts.init.state)
        self._updates = Updates(
            run=parts.run,
            init=parts.init,
            devices=self._devices,
            keys=self.keys,
            expect=self._expect,
            stop_guests=parts.stop_guests,
        )
        self._proof = Proof(
            state=parts.state,
            durable=parts.durable,
            init=parts.init,
            devices=self._devices,
            events=parts.events,
            prove=self._prove,
        )

    async def _source(self, stack: AsyncExitStack, name: str, boot: BootFacts, progress: Progress) -> Path:
        async with progress.step("source"):
            opened = self._sources.opened(name, boot, lambda part: progress.at(0.1 * part))
            return await stack.enter_async_context(opened)

    def _start(
        self, verb: str, subject: str, work: Work, owner: str, *, cancellable: bool = False
    ) -> Started:
        if self._busy:
            raise _busy(self._busy)

        async def alone(progress: Progress) -> dict[str, str] | None:
            with self._alone(verb):
                return await work(progress)

        task = self._parts.tasks.start(verb, subject, alone, owner=owner, cancellable=cancellable)
        return Started(task=task, subject=subject)

    @contextmanager
    def _alone(self, verb: str) -> Iterator[None]:
        """For the time of the block nothing else of this package may begin. Raises `Problem` CONFLICT."""
        if self._busy:
            raise _busy(self._busy)
        self._busy = verb
        try:
            yield
        finally:
            self._busy = ""

    async def _expect(self) -> Expect:
        return await health.expectations(self._now())

    async def _prove(self, expect: Expect) -> str:
        return await health.prove(expect, self._now, within=PROVE_S)

    def _now(self) -> Now:
        return Now(
            state=self._parts.init.state[0],
            datastores=tuple(sorted(self._parts.storage.homes())),
            fingerprint=self._parts.fingerprint,
            port=self._parts.port,
        )

    def _not_hosted(self) -> None:
        if self._parts.hosted:
            raise Problem(
                Code.UNSUPPORTED,
                "this agent runs inside another operating system, which boots itself",
                hint="Update Thimble there as you installed it.",
            )

    def _say(self, line: str) -> None:
        log.say(line)
        if self._parts.init.present:
            self._parts.init.tell("say", line=line)


def _busy(verb: str) -> Problem:
    return Problem(Code.CONFLICT, f"{verb} is at work", hint="Wait for its task: `thimble task list`.")
