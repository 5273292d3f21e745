"""What the verbs of this package share: its parts put together, and whose turn it is to change something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from thimble.contract.vm import HostShutdown
from thimble.core.decision import Decision, blocked
from thimble.core.problem import Code, Problem, Reason
from thimble.deploy import this_boot
from thimble.deploy.devices import Devices
from thimble.deploy.health import HealthCheck, Present
from thimble.deploy.image_source import ImageSources
from thimble.deploy.mounts import Mounts
from thimble.deploy.policy import Policy
from thimble.deploy.trial import TrialBoot
from thimble.deploy.trust import KeyService
from thimble.host.pid1 import BootFacts, Init
from thimble.state.events import Events
from thimble.state.tasks import Progress, Tasks
from thimble.storage.service import Storage

#: Brings the VMs down for the time of the block, in the seconds guests get, each as its own setting says or
#: all in one way. A block that fails means that the host stays: VMs may be started again.
GuestsStopped = Callable[[float, HostShutdown | None], AbstractAsyncContextManager[None]]


class DeployParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the app hands over. `port`: of our API; `ram_vms`: the names of VMs that live in memory only."""

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
    guests_stopped: GuestsStopped
    ram_vms: Callable[[], tuple[str, ...]]


class DeployContext:
    """Making one reads our records; nothing else is looked at or changed before `begin` or a verb."""

    def __init__(
        self, parts: DeployParts, *, keys: KeyService | None = None, health: HealthCheck | None = None
    ) -> None:
        self.parts = parts
        self.mounts = Mounts(parts.run)
        self.devices = Devices(self.mounts, lambda: parts.init.state)
        self.images = ImageSources(parts.run, parts.storage, self.mounts, lambda: parts.init.words)
        self.keys = keys or KeyService(
            parts.state, parts.run / "deploy", durable=parts.durable, rev=lambda: parts.events.rev
        )
        self.policy = Policy(parts.state, durable=parts.durable)
        self.health = health or HealthCheck(self._present)
        self.trial = TrialBoot(
            parts.state,
            durable=parts.durable,
            init=parts.init,
            devices=self.devices,
            events=parts.events,
            prove=self.health.prove,
        )
        self.holder: Turn | None = None

    async def begin(self) -> None:
        """After ready, before any VM starts: unmount leftovers, prove a trial boot, settle the last one."""
        if not self.parts.hosted:
            await asyncio.to_thread(self.mounts.tidy)
            await self.trial.begin()

    @property
    def boot(self) -> BootFacts:
        """How this boot came about, as far as PID 1 knows by now."""
        return this_boot.facts(self.parts.init)

    def turn(self, verb: str) -> Turn:
        """One request's turn to change what this host starts from."""
        return Turn(self, verb)

    def not_hosted(self) -> None:
        """Raises `Problem` UNSUPPORTED where another operating system starts this machine."""
        if self.parts.hosted:
            raise Problem(
                Code.UNSUPPORTED,
                "this agent runs inside another operating system, which boots itself",
                hint="Update Thimble there as you installed it.",
            )

    def announce(self, line: str) -> None:
        """In the log and on every console."""
        this_boot.announce(self.parts.init, line)

    @asynccontextmanager
    async def image(self, name: str, boot: BootFacts, progress: Progress) -> AsyncIterator[Path]:
        """The step `source` of a task: the image file, there for the time of the block. Raises `Problem`."""
        async with AsyncExitStack() as stack:
            async with progress.step("source"):
                opened = self.images.opened(name, boot, lambda part: progress.at(0.1 * part))
                path = await stack.enter_async_context(opened)
            yield path

    def _present(self) -> Present:
        return Present(
            state=self.parts.init.state[0],
            datastores=tuple(sorted(self.parts.storage.homes())),
            fingerprint=self.parts.fingerprint,
            port=self.parts.port,
        )


class Turn(AbstractAsyncContextManager["Turn"]):
    """Had by one request at a time, from its decision to its end; others do not wait: they are refused."""

    def __init__(self, context: DeployContext, verb: str) -> None:
        self._context = context
        self._verb = verb

    def checked(self, decision: Decision[Any]) -> Decision[Any]:
        """`decision`, with a blocker when it is somebody else's turn."""
        holder = self._context.holder
        if holder is None or holder is self:
            return decision
        message = f"{holder._verb} is at work"
        return decision.against(
            (Reason(message=message, code=Code.CONFLICT),), hint="Wait for its task: `thimble task list`."
        )

    async def __aenter__(self) -> Turn:
        self.checked(Decision()).refuse()
        self._context.holder = self
        return self

    async def __aexit__(self, *_: object) -> None:
        self._context.holder = None


def refused(problem: Problem) -> Decision[Any]:
    """The decision for something that was looked at and found impossible."""
    reasons = problem.reasons or (Reason(message=problem.detail, code=problem.code),)
    return blocked(*reasons, refusal=problem.detail, hint=problem.hint)
