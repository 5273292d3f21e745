"""The verbs of the host document: plan, apply, export, get.

    applying.json ─► effect ─► effect ─► … ─► applied.json, no applying.json

Applying calls the very methods the API calls, one effect after the other, and stops at the first that fails.
Whatever happened, applying again plans anew from what is there then. What reads and plans is imported when it
is used: most hosts start with a document that they know already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from thimble.contract.call import Call
from thimble.contract.common import DryRun, TaskState
from thimble.contract.document_api import DocumentExport, DocumentPlan, DocumentState, DocumentText
from thimble.contract.management import REACH, ManagementChange
from thimble.contract.verbs import Started
from thimble.core.decision import Decision, blocked
from thimble.core.lazy import Lazy
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.dispatch import run
from thimble.dispatch.registry import Registry
from thimble.document.records import APPLIED, APPLYING, FOUND, DocumentRecord, digest
from thimble.state.store import Collection
from thimble.state.tasks import Progress, Tasks

if TYPE_CHECKING:
    from thimble.contract.document import Document
    from thimble.document.host_facts import Sources
    from thimble.document.plan import Plan
    from thimble.document.read import Read
    from thimble.document.steps import Ask


class DocumentService:
    """`document.*`. `problem` is what came of the document found at boot; `at_boot` writes it."""

    def __init__(
        self, state: Path, sources: Lazy[Sources], tasks: Tasks, *, durable: bool, clock: Callable[[], float]
    ) -> None:
        self.problem = ""
        self._records: Collection[DocumentRecord] = Collection(
            DocumentRecord, noun="document", durable=durable
        )
        self._records.add_root("", state / "document")
        self._sources = sources
        self._tasks = tasks
        self._clock = clock
        self._applying = ""  # the task's id

    @property
    def last(self) -> DocumentRecord | None:
        """The document applied last, or on its way."""
        found = self._records.find(APPLYING) or self._records.find(APPLIED)
        return found.value if found else None

    @property
    def complete(self) -> bool:
        """Was all of it applied?"""
        return self._records.find(APPLYING) is None

    def settled(self, sha256: str) -> bool:
        """Was this document found at boot and applied before? Then what was applied since stays."""
        last, found = self.last, self._records.find(FOUND)
        known = {one.sha256 for one in (last, found.value if found else None) if one is not None}
        cut_off = last is not None and not self.complete and last.sha256 == sha256
        return sha256 in known and not cut_off

    async def settle(self, text: str, source: str) -> None:
        """The document found at boot is applied."""
        record = DocumentRecord(text=text, source=source, sha256=digest(text), applied=self._clock())
        await self._records.commit(FOUND, record)

    @property
    def busy(self) -> bool:
        """Is one being applied?"""
        return bool(self._applying)

    def last_document(self) -> Document | None:
        """The same, read; None when there is none or this version cannot read it."""
        from thimble.document.read import read

        try:
            return read(self.last.text).document if self.last else None
        except Problem:
            return None

    async def plan(self, call: Call[DocumentText]) -> DocumentPlan | DryRun:
        """A look: its dry run is the same without the plan's details."""
        planned = await self._plan(call.input)
        return run.dry_run(_decision(planned, call.input)) if call.dry_run else planned

    async def export(self, _call: Call[None]) -> DocumentExport:
        from thimble.document import export

        last = await asyncio.to_thread(self.last_document)
        facts = await self._sources.get().facts(None, last)
        return DocumentExport(text=await asyncio.to_thread(export.text, facts))

    async def get(self, _call: Call[None]) -> DocumentState:
        last = self.last
        if last is None:
            return DocumentState(problem=self.problem)
        state = DocumentState(
            sha256=last.sha256,
            source=last.source,
            applied=last.applied,
            complete=self.complete,
            problem=self.problem,
        )
        try:
            _, planned = await self._decide(last.text)
        except Problem as problem:
            return msgspec.structs.replace(state, problem=self.problem or problem.detail)
        changes = [*(one.what for one in planned.effects), *(one.message for one in planned.blockers)]
        return msgspec.structs.replace(state, changes=tuple(changes), drift=planned.drift)

    async def apply(self, call: Call[DocumentText]) -> Started | DryRun:
        planned = await self._plan(call.input)
        mine = ""

        def decide() -> Decision[DocumentText]:
            """The task itself plans anew, when nothing works on VMs any more."""
            if self._applying not in ("", mine):
                message = f"a document is just being applied, in the task {self._applying}"
                busy = Reason(message=message, code=Code.CONFLICT)
                return blocked(busy, refusal=message, hint="Wait for that task.")
            return _decision(planned, call.input)

        async def act(_: DocumentText, progress: Progress) -> dict[str, str]:
            try:
                return await self._carry_out(call, progress)
            finally:
                self._applying = ""

        answer = await run.task(self._tasks, "document.apply", "host", call, decide, act)
        if isinstance(answer, Started):
            mine = self._applying = answer.task.id
        return answer

    async def _plan(self, given: DocumentText) -> DocumentPlan:
        """What applying would do, with every blocker its verbs know of. Raises `Problem`."""
        from thimble.document.dry_run import preview

        async def attempt(ask: Ask) -> object:
            wanted = self._tried(ask.probe or ask.input, given.confirm_within)
            return await self._ask(ask, wanted, dry_run=True)

        found, planned = await self._decide(given.text)
        return await preview(found, planned, attempt)

    async def _decide(self, text: str) -> tuple[Read, Plan]:
        """Raises `Problem` when the text is wrong."""
        from thimble.document.plan import plan
        from thimble.document.read import read

        found = await asyncio.to_thread(read, text)
        facts = await self._sources.get().facts(found.document)
        return found, await asyncio.to_thread(plan, found.document, facts)

    async def _carry_out(self, call: Call[DocumentText], progress: Progress) -> dict[str, str]:
        given = call.input
        async with progress.step("wait"):
            await self._quiet()
        found, planned = await self._decide(given.text)
        blockers = [found.reason(one.at, one.message, one.code) for one in planned.blockers]
        refuse(blockers, "the document cannot be applied any more", hint="Correct it, or the host.")
        record = DocumentRecord(
            text=given.text, source=given.source, sha256=found.sha256, applied=self._clock()
        )
        same = self.complete and self.last is not None and self.last.sha256 == found.sha256
        if planned.effects:
            async with progress.step("begin"):
                await self._records.commit(APPLYING, record)
        done: list[str] = []
        for number, effect in enumerate(planned.effects):
            try:
                for ask in effect.asks:
                    async with progress.step(f"{effect.subject}: {ask.verb}"):
                        await self._do(ask, call)
            except Problem as problem:
                left = [one.what for one in planned.effects[number:]]
                raise _stopped(problem, effect.what, done, left) from problem
            done.append(effect.what)
            progress.at((number + 1) / len(planned.effects))
        async with progress.step("done"):
            if planned.effects or not same:
                await self._records.commit(APPLIED, record)
            if not self.complete:
                await self._records.remove(APPLYING)
            self.problem = ""
        return {"done": "\n".join(done)} if done else {"note": "it is so already: nothing to do"}

    async def _quiet(self) -> None:
        """Wait until nothing works on the VMs: what was interrupted before is finished first."""
        for task in self._tasks.all():
            if task.state is TaskState.RUNNING and task.verb.startswith("vm."):
                await self._tasks.wait(task.id)

    async def _do(self, ask: Ask, caller: Call[DocumentText]) -> None:
        wanted = self._tried(ask.input, caller.input.confirm_within)
        answer = await self._ask(ask, wanted, user=caller.user, token=caller.token)
        if isinstance(answer, Started):
            ended = await self._tasks.wait(answer.task.id)
            if ended.problem is not None:
                raise ended.problem.problem()

    @property
    def _registry(self) -> Registry:
        return self._sources.get().registry

    def _tried(self, given: msgspec.Struct | None, seconds: int) -> msgspec.Struct | None:
        """What could cut the host off is tried first, where it has an effect at all."""
        if not isinstance(given, ManagementChange) or self._registry.service("management").decided:
            return given
        cuts = any(getattr(given, name) is not msgspec.UNSET for name in REACH)
        return msgspec.structs.replace(given, confirm_within=seconds) if cuts else given

    async def _ask(self, ask: Ask, given: msgspec.Struct | None, **more: Any) -> object:
        return await self._registry.ask(ask.verb, input=given, path=ask.path, **more)


def _decision(planned: DocumentPlan, given: DocumentText) -> Decision[DocumentText]:
    return Decision(
        plan=given,
        effects=tuple(one.what for one in planned.effects),
        blockers=planned.blockers,
        warnings=(*planned.warnings, *planned.drift),
        refusal="the document cannot be applied",
        hint="Correct it, or the host.",
    )


def _stopped(problem: Problem, what: str, done: list[str], left: list[str]) -> Problem:
    """What went wrong, what was done before, and what was not done."""
    return Problem(
        problem.code,
        f"{what}: {problem.detail}",
        hint=" ".join(filter(None, (problem.hint, "Applying again goes on from here."))),
        reasons=(
            *problem.reasons,
            *(Reason(message=f"done: {line}", code=problem.code) for line in done),
            *(Reason(message=f"not done: {line}", code=problem.code) for line in left),
        ),
    )
