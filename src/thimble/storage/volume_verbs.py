"""The API's verbs on volumes of their own; those of VMs come and go with them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Nothing
from thimble.contract.storage import Volume, VolumeCreate, VolumeList
from thimble.contract.verbs import Started
from thimble.core.decision import Decision
from thimble.core.problem import Code, Problem, Reason
from thimble.core.units import show_size
from thimble.dispatch import run
from thimble.state.tasks import Progress
from thimble.storage import refs, rules
from thimble.storage.attachments import Claim
from thimble.storage.deadline import LIST_S
from thimble.storage.records import ImageFacts, VolumeFacts
from thimble.storage.refs import Ref
from thimble.storage.service import Storage

Reasons: TypeAlias = list[Reason]
Lines: TypeAlias = list[str]


class VolumeService:
    """`volume.*`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._claims = storage.attachments.volumes

    async def list(self, _call: Call[None]) -> VolumeList:
        rev = self._storage.events.rev
        users = self._claims.users()
        found = (
            Volume(
                name=facts.ref,
                datastore=refs.parse(facts.ref, "").datastore,
                size_bytes=facts.size_bytes,
                used_bytes=facts.used_bytes,
                format=facts.format,
                vm=users.get(facts.ref),
            )
            for facts in await self._storage.volumes.all()
        )
        return VolumeList(rev=rev, volumes=tuple(found))

    async def create(self, call: Call[VolumeCreate]) -> Started | DryRun:
        request, storage = call.input, self._storage
        ref = Ref(request.datastore or storage.default, request.name)
        claim = self._claims.take(str(ref), call.user or "the API", "volume.create")

        async def act(target: Path, progress: Progress) -> dict[str, str]:
            async with progress.step("volume"):
                size = await storage.fill_volume(
                    target,
                    size_bytes=request.size_bytes,
                    image=request.image,
                    home=ref.datastore,
                    format=request.format,
                    made_by=call.user,
                    progress=progress.at,
                )
            storage.events.publish("volume.changed", str(ref))
            return {"volume": str(ref), "size_bytes": str(size)}

        return await run.task(
            storage.tasks,
            "volume.create",
            str(ref),
            call,
            lambda: self._decide_create(request, ref, claim),
            act,
            turn=claim,
            cancellable=True,
        )

    async def _decide_create(self, request: VolumeCreate, ref: Ref, claim: Claim) -> Decision[Path]:
        """The plan is the file to make."""
        refusal = f"the volume {ref.name} cannot be made"
        reasons = rules.volume_name_reasons(ref.name, "$.name")
        image: ImageFacts | None = None
        try:
            home = self._storage.datastores.home(ref.datastore)
            free = await self._storage.datastores.measure(ref.datastore)
        except Problem as error:
            reasons.append(Reason(message=error.detail, code=error.code, path="$.datastore"))
            return Decision(effects=_creates(ref, request, None), blockers=tuple(reasons), refusal=refusal)
        if request.image is not None:
            try:
                image = await self._storage.find_image(refs.parse(request.image, ref.datastore))
            except Problem as error:
                reasons.append(Reason(message=error.detail, code=error.code, path="$.image"))
        reasons += rules.new_disk_reasons(
            request.size_bytes, image, wants_image=request.image is not None, free=free, path="$"
        )
        if not reasons:
            reasons = await self._taken(ref, claim)
        warnings = [] if reasons else await self._warnings(ref, request, image, free)
        return Decision(
            plan=home.volume("", ref.name, request.format),
            effects=_creates(ref, request, image),
            blockers=tuple(reasons),
            warnings=tuple(warnings),
            refusal=refusal,
        )

    async def _warnings(self, ref: Ref, request: VolumeCreate, image: ImageFacts | None, free: int) -> Lines:
        """May the datastore fill up?"""
        volumes = self._storage.volumes
        promised = await self._storage.datastores.ask(
            ref.datastore, lambda _: volumes.promised(ref.datastore), LIST_S
        )
        return rules.overcommit(_size(request, image), promised, free, str(ref))

    async def _taken(self, ref: Ref, claim: Claim) -> Reasons:
        """Why the name is not free."""
        found = await self._storage.datastores.ask(ref.datastore, lambda home: home.find_volume(ref))
        if found is not None:
            message = f"there is a volume {ref} already"
            return [Reason(message=message, code=Code.EXISTS, path="$.name")]
        return self._claims.reasons(str(ref), "$.name", own=claim)

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        storage = self._storage
        ref = refs.parse(call.path["volume"], storage.default)
        claim = self._claims.take(str(ref), call.user or "the API", "volume.delete")

        async def act(decision: Decision[VolumeFacts]) -> Nothing:
            assert decision.plan is not None
            await storage.remove_volume(decision.plan.path)
            storage.events.publish("volume.deleted", str(ref))
            return Nothing()

        async def decide() -> Decision[VolumeFacts]:
            facts = await storage.find_volume(ref)
            return Decision(
                plan=facts,
                effects=(f"deletes volume {ref} ({show_size(facts.used_bytes)} used)",),
                blockers=tuple(self._claims.reasons(str(ref), own=claim)),
                refusal=f"the volume {ref} cannot be deleted",
                hint="Take it out of that VM first.",
            )

        return await run.now(call, decide, act, turn=claim)


def _creates(ref: Ref, request: VolumeCreate, image: ImageFacts | None) -> tuple[str]:
    copy = f" as a copy of {image.ref}" if image else ""
    return (f"creates volume {ref} ({show_size(_size(request, image))}){copy}",)


def _size(request: VolumeCreate, image: ImageFacts | None) -> int:
    return request.size_bytes or (image.size_bytes if image else 0)
