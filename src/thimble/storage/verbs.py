"""The API's verbs on datastores, volumes and images."""

from __future__ import annotations

import os
from typing import TypeAlias

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect, Nothing
from thimble.contract.storage import (
    Datastore,
    DatastoreCreate,
    DatastoreKind,
    DatastoreList,
    Image,
    ImageList,
    Volume,
    VolumeCreate,
    VolumeList,
)
from thimble.contract.verbs import Started
from thimble.core.decision import Accept
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.core.units import show_size
from thimble.state.store import check
from thimble.state.tasks import Progress
from thimble.storage import plan, rules
from thimble.storage.datastores import LOCAL
from thimble.storage.records import ImageFacts
from thimble.storage.service import Storage

Reasons: TypeAlias = list[Reason]


class DatastoreService:
    """`datastore.*`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._datastores = storage.datastores

    async def list(self, _call: Call[None]) -> DatastoreList:
        rev = self._storage.events.rev
        await self._datastores.refresh()
        return DatastoreList(
            rev=rev, datastores=tuple(self._datastores.view(name) for name in self._datastores.names())
        )

    async def create(self, call: Call[DatastoreCreate]) -> Datastore | DryRun:
        async with self._datastores.lock:
            return await self._create(call)

    async def _create(self, call: Call[DatastoreCreate]) -> Datastore | DryRun:
        request = call.input
        effects, reasons = self._decide(request)
        if call.dry_run:
            return DryRun(
                possible=not reasons,
                effects=tuple(Effect(what=effect.describe()) for effect in effects),
                blockers=tuple(reasons),
                warnings=_ram_warning(request),
            )
        refuse(reasons, f"the datastore {request.name} cannot be made")
        await self._datastores.create(request, effects)
        return self._datastores.view(request.name)

    def _decide(self, request: DatastoreCreate) -> tuple[tuple[plan.DatastoreEffect, ...], Reasons]:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        reasons = rules.datastore_reasons(request, memory)
        if request.name in self._datastores.names():
            reasons.append(_exists("datastore", request.name))
        if reasons:
            return (), reasons
        decision = self._datastores.decide(request)
        if isinstance(decision, Accept):
            return decision.plan, []
        return (), list(decision.reasons)

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        name = call.path["datastore"]
        record = self._datastores.record(name)
        check(call.if_match, record.rev, "datastore")
        reasons = self._kept_by(name)
        if call.dry_run:
            lost = record.value.kind is DatastoreKind.RAM
            what = f"forgets {name}; " + ("what is in it is lost" if lost else "its files stay")
            return DryRun(possible=not reasons, effects=(Effect(what=what),), blockers=tuple(reasons))
        refuse(reasons, f"the datastore {name} cannot be forgotten now")
        await self._datastores.delete(name, call.if_match)
        return Nothing()

    def _kept_by(self, name: str) -> Reasons:
        if name == LOCAL:
            return [Reason(message="the datastore local is always there", code=Code.CONFLICT)]
        home = self._storage.homes().get(name)
        vms = sorted(path.name for path in home.iterdir() if path.is_dir()) if home else []
        users = {**self._storage.users(), **self._storage.image_users()}
        vms += [vm for ref, vm in sorted(users.items()) if ref.split("/")[0] == name and vm not in vms]
        return [Reason(message=f"the VM {vm} is on it or uses it", code=Code.IN_USE) for vm in vms]


class VolumeService:
    """`volume.*`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(self, _call: Call[None]) -> VolumeList:
        rev = self._storage.events.rev
        users = self._storage.users()
        found = (
            Volume(
                name=facts.ref,
                datastore=facts.ref.split("/")[0],
                size_bytes=facts.size_bytes,
                used_bytes=facts.used_bytes,
                format=facts.format,
                vm=users.get(facts.ref),
            )
            for facts in self._storage.volumes.all()
        )
        return VolumeList(rev=rev, volumes=tuple(found))

    async def create(self, call: Call[VolumeCreate]) -> Started | DryRun:
        request = call.input
        home = request.datastore or self._storage.default
        reasons, image = self._check(request, home)
        if call.dry_run:
            return self._dry_run(request, home, reasons, image)
        refuse(reasons, f"the volume {request.name} cannot be made")
        ref = f"{home}/{request.name}"
        target = self._storage.datastores.root(home) / "volumes" / f"{request.name}.{request.format}"

        async def work(progress: Progress) -> dict[str, str]:
            async with progress.step("volume"):
                size = await self._storage.create_volume(
                    target,
                    size_bytes=request.size_bytes,
                    image=request.image,
                    home=home,
                    format=request.format,
                    progress=progress.at,
                )
            self._storage.events.publish("volume.changed", ref)
            return {"volume": ref, "size_bytes": str(size)}

        task = self._storage.tasks.start("volume.create", ref, work, owner=call.user, cancellable=True)
        return Started(task=task, subject=ref)

    def _check(self, request: VolumeCreate, home: str) -> tuple[Reasons, ImageFacts | None]:
        reasons = rules.volume_name_reasons(request.name, "$.name")
        image: ImageFacts | None = None
        try:
            free = self._storage.datastores.free(home)
        except Problem as error:
            return [*reasons, Reason(message=error.detail, code=error.code, path="$.datastore")], None
        if request.image is not None:
            try:
                image = self._storage.resolve_image(request.image, home)
            except Problem as error:
                reasons.append(Reason(message=error.detail, code=error.code, path="$.image"))
        reasons += rules.new_disk_reasons(
            request.size_bytes, image, wants_image=request.image is not None, free=free, path="$"
        )
        if not reasons and self._there(request.name, home):
            reasons.append(_exists("volume", f"{home}/{request.name}"))
        return reasons, image

    def _there(self, name: str, home: str) -> bool:
        try:
            self._storage.resolve_volume(f"{home}/{name}", home)
        except Problem as error:
            return error.code is not Code.NOT_FOUND
        return True

    def _dry_run(
        self, request: VolumeCreate, home: str, reasons: Reasons, image: ImageFacts | None
    ) -> DryRun:
        size = request.size_bytes or (image.size_bytes if image else 0)
        what = f"creates volume {home}/{request.name} ({show_size(size)})"
        if image:
            what += f" as a copy of {image.ref}"
        warnings = [] if reasons else self._storage.size_warnings(size, home, f"{home}/{request.name}")
        return DryRun(
            possible=not reasons,
            effects=(Effect(what=what),),
            blockers=tuple(reasons),
            warnings=tuple(warnings),
        )

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        facts = self._storage.resolve_volume(call.path["volume"], self._storage.default)
        reasons = rules.free_reasons(facts, self._storage.users(), "", "")
        if call.dry_run:
            what = f"deletes volume {facts.ref} ({show_size(facts.used_bytes)} used)"
            return DryRun(possible=not reasons, effects=(Effect(what=what),), blockers=tuple(reasons))
        refuse(reasons, f"the volume {facts.ref} cannot be deleted", hint="Take it out of that VM first.")
        await self._storage.remove_volume(facts.path)
        self._storage.events.publish("volume.deleted", facts.ref)
        return Nothing()


class ImageService:
    """`image.*`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(self, _call: Call[None]) -> ImageList:
        rev = self._storage.events.rev
        return ImageList(rev=rev, images=tuple(_image(facts) for facts in self._storage.images.all()))

    async def upload(self, call: Call[None]) -> Image | DryRun:
        store, name = rules.split_ref(call.path["image"], self._storage.default)
        ref, sha256 = f"{store}/{name}", call.query.get("sha256", "").lower()
        refuse(rules.image_name_reasons(name, "$.image"), f"{name!r} is not a name for an image")
        free = self._storage.datastores.free(store)
        present = self._present(ref)
        if present is not None and sha256 and present.sha256 == sha256:
            return _image(present)
        if present is not None:
            raise Problem(
                Code.EXISTS, f"there is an image {ref} already", hint="Delete it first, or use another name."
            )
        if call.dry_run:
            short = call.length is not None and call.length > free - rules.RESERVE
            return DryRun(
                possible=not short,
                effects=(Effect(what=f"stores image {ref}"),),
                blockers=(rules.no_room(call.length or 0, free, ""),) if short else (),
            )
        if call.body is None:
            raise Problem(Code.MALFORMED, "there is no upload in this request")
        facts = await self._storage.images.receive(store, name, call.body, call.length, sha256)
        self._storage.events.publish("image.changed", ref)
        return _image(facts)

    def _present(self, ref: str) -> ImageFacts | None:
        try:
            return self._storage.resolve_image(ref, self._storage.default)
        except Problem as error:
            if error.code is Code.NOT_FOUND:
                return None
            raise

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        facts = self._storage.resolve_image(call.path["image"], self._storage.default)
        user = self._storage.image_users().get(facts.ref)
        reasons = []
        if user is not None:
            reasons.append(Reason(message=f"{facts.ref} is used by {user}", code=Code.IN_USE))
        if call.dry_run:
            what = f"deletes image {facts.ref} ({show_size(facts.file_bytes)})"
            return DryRun(possible=not reasons, effects=(Effect(what=what),), blockers=tuple(reasons))
        refuse(reasons, f"the image {facts.ref} cannot be deleted", hint="Take it out of that VM first.")
        await self._storage.images.remove(facts)
        self._storage.events.publish("image.deleted", facts.ref)
        return Nothing()


def _image(facts: ImageFacts) -> Image:
    return Image(
        name=facts.ref,
        datastore=facts.ref.split("/")[0],
        format=facts.kind,
        file_bytes=facts.file_bytes,
        size_bytes=facts.size_bytes,
        sha256=facts.sha256,
    )


def _exists(noun: str, name: str) -> Reason:
    return Reason(message=f"there is a {noun} {name} already", code=Code.EXISTS, path="$.name")


def _ram_warning(request: DatastoreCreate) -> tuple[str, ...]:
    if request.kind is not DatastoreKind.RAM:
        return ()
    return ("what is in it is lost when the host reboots",)
