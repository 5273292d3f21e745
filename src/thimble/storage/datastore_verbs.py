"""The API's verbs on datastores."""

from __future__ import annotations

import asyncio
import os
from typing import Any, TypeAlias

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Nothing
from thimble.contract.storage import Datastore, DatastoreCreate, DatastoreList
from thimble.core.decision import GO, Decision, blocked
from thimble.core.problem import Code, Reason
from thimble.dispatch import run
from thimble.state.store import check
from thimble.storage import kinds, refs
from thimble.storage.datastores import LOCAL
from thimble.storage.service import Storage

Reasons: TypeAlias = list[Reason]


class DatastoreService:
    """`datastore.*`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._datastores = storage.datastores

    async def list(self, _call: Call[None]) -> DatastoreList:
        rev = self._storage.events.rev
        await self._datastores.arrivals.refresh()
        names = self._datastores.names()
        await asyncio.gather(*(self._datastores.measure(name) for name in names))
        return DatastoreList(rev=rev, datastores=tuple(self._datastores.view(name) for name in names))

    async def create(self, call: Call[DatastoreCreate]) -> Datastore | DryRun:
        request = call.input

        async def act(decision: Decision[Any]) -> Datastore:
            await self._datastores.create(request, decision.plan)
            return self._datastores.view(request.name)

        return await run.now(call, lambda: self._decide(request), act, turn=self._datastores.lock)

    async def _decide(self, request: DatastoreCreate) -> Decision[Any]:
        refusal = f"the datastore {request.name} cannot be made"
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        reasons = kinds.reasons(request, memory)
        if request.name in self._datastores.names():
            message = f"there is a datastore {request.name} already"
            reasons.append(Reason(message=message, code=Code.EXISTS, path="$.name"))
        if reasons:
            return blocked(*reasons, refusal=refusal)
        decision = await self._datastores.decide(request)
        return blocked(*decision.blockers, refusal=refusal) if decision.blockers else decision

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        name = call.path["datastore"]

        async def act(_decision: Decision[bool]) -> Nothing:
            await self._datastores.delete(name, call.if_match)
            return Nothing()

        return await run.now(call, lambda: self._forget(name, call.if_match), act, turn=self._datastores.lock)

    async def _forget(self, name: str, expect: int | None) -> Decision[bool]:
        check(expect, self._datastores.record(name).rev, "datastore")
        return Decision(
            plan=GO,
            effects=(f"forgets {name}; {self._datastores.lost(name)}",),
            blockers=tuple(await self._kept_by(name)),
            refusal=f"the datastore {name} cannot be forgotten now",
        )

    async def _kept_by(self, name: str) -> Reasons:
        """Who is on it, uses something on it, or works there."""
        if name == LOCAL:
            return [Reason(message="the datastore local is always there", code=Code.CONFLICT)]
        held = self._storage.attachments
        vms = []
        if name in self._datastores.mounted():
            vms = await self._datastores.ask(name, lambda home: home.vm_ids())
        users = {**held.volumes.users(), **held.images.users()}
        vms += [
            vm for ref, vm in sorted(users.items()) if refs.parse(ref, "").datastore == name and vm not in vms
        ]
        found = [Reason(message=f"the VM {vm} is on it or uses it", code=Code.IN_USE) for vm in vms]
        return found + held.volumes.below(name) + held.images.below(name)
