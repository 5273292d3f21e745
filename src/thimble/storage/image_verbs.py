"""The API's verbs on images."""

from __future__ import annotations

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Nothing
from thimble.contract.storage import Image, ImageList
from thimble.core.decision import GO, Decision, blocked, nothing
from thimble.core.problem import Code, Problem, Reason
from thimble.core.units import show_size
from thimble.dispatch import run
from thimble.storage import refs, rules
from thimble.storage.attachments import Claim
from thimble.storage.records import ImageFacts
from thimble.storage.refs import Ref
from thimble.storage.service import Storage


class ImageService:
    """`image.*`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._claims = storage.attachments.images

    async def list(self, _call: Call[None]) -> ImageList:
        rev = self._storage.events.rev
        found = await self._storage.images.all()
        return ImageList(rev=rev, images=tuple(_image(facts) for facts in found))

    async def upload(self, call: Call[None]) -> Image | DryRun:
        storage = self._storage
        ref = refs.parse(call.path["image"], storage.default)
        sha256 = call.query.get("sha256", "").lower()
        claim = self._claims.take(str(ref), call.user or "the API", "image.upload")

        async def act(decision: Decision[bool]) -> Image:
            if decision.plan is None:
                return _image(await storage.find_image(ref))
            if call.body is None:
                raise Problem(Code.MALFORMED, "there is no upload in this request")
            facts = await storage.images.receive(ref.datastore, ref.name, call.body, call.length, sha256)
            storage.events.publish("image.changed", str(ref))
            return _image(facts)

        return await run.now(
            call, lambda: self._decide_upload(ref, call.length, sha256, claim), act, turn=claim
        )

    async def _decide_upload(self, ref: Ref, length: int | None, sha256: str, claim: Claim) -> Decision[bool]:
        if reasons := rules.image_name_reasons(ref.name, "$.image"):
            return blocked(*reasons, refusal=f"{ref.name!r} is not a name for an image")
        self._storage.datastores.root(ref.datastore)
        free = await self._storage.datastores.measure(ref.datastore)
        present = await self._present(ref)
        if present is not None and sha256 and present.sha256 == sha256:
            return nothing(f"{ref} is there already")
        reasons = self._claims.reasons(str(ref), "$.image", own=claim) if present is None else []
        hint = ""
        if present is not None:
            reasons = [Reason(message=f"there is an image {ref} already", code=Code.EXISTS)]
            hint = "Delete it first, or use another name."
        elif length is not None and length > free - rules.RESERVE:
            reasons.append(rules.no_room(length, free, ""))
        return Decision(plan=GO, effects=(f"stores image {ref}",), blockers=tuple(reasons), hint=hint)

    async def _present(self, ref: Ref) -> ImageFacts | None:
        try:
            return await self._storage.find_image(ref)
        except Problem as error:
            if error.code is Code.NOT_FOUND:
                return None
            raise

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        storage = self._storage
        ref = refs.parse(call.path["image"], storage.default)
        claim = self._claims.take(str(ref), call.user or "the API", "image.delete")

        async def act(decision: Decision[ImageFacts]) -> Nothing:
            assert decision.plan is not None
            await storage.images.remove(decision.plan)
            storage.events.publish("image.deleted", str(ref))
            return Nothing()

        async def decide() -> Decision[ImageFacts]:
            facts = await storage.find_image(ref)
            return Decision(
                plan=facts,
                effects=(f"deletes image {ref} ({show_size(facts.file_bytes)})",),
                blockers=tuple(self._claims.reasons(str(ref), own=claim)),
                refusal=f"the image {ref} cannot be deleted",
                hint="Take it out of that VM first.",
            )

        return await run.now(call, decide, act, turn=claim)


def _image(facts: ImageFacts) -> Image:
    return Image(
        name=facts.ref,
        datastore=refs.parse(facts.ref, "").datastore,
        format=facts.kind,
        file_bytes=facts.file_bytes,
        size_bytes=facts.size_bytes,
        sha256=facts.sha256,
    )
