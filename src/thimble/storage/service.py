"""The seam of storage: `Storage` for VMs and for `app`; the verbs of each noun are beside it.

Checks answer with reasons and touch nothing but `stat`; what they found is checked again by whoever acts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from thimble.contract.common import Event
from thimble.contract.vm import DiskFormat, DiskSpec
from thimble.core.lazy import Lazy
from thimble.core.problem import Code, Problem, Reason
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.state.tasks import Tasks
from thimble.storage import homes, refs
from thimble.storage.attachments import Attachments, Mode, Ports
from thimble.storage.datastores import Datastores
from thimble.storage.kinds.base import Surroundings
from thimble.storage.refs import Ref
from thimble.sys import clock as system
from thimble.sys.worker import Worker

if TYPE_CHECKING:
    from thimble.storage.images import Images
    from thimble.storage.qemu_img import QemuImg
    from thimble.storage.records import ImageFacts, VolumeFacts
    from thimble.storage.volumes import Volumes

#: Seconds that the work after "ready" waits for datastores that are still looked for.
SETTLE_S = 10.0


class Storage:
    """`root`: the state directory; `run`: for mounts. `qemu_img` and `mkfs`: programs to use.

    `ports`: what is asked of VMs; they register there when they are made.
    """

    def __init__(
        self,
        root: Path,
        run: Path,
        *,
        events: Events,
        tasks: Tasks,
        ports: Ports | None = None,
        qemu_img: str = "qemu-img",
        mkfs: str = "mkfs.ext4",
        clock: Callable[[], float] = system.now,
        entropy: Callable[[int], bytes] = system.entropy,
    ) -> None:
        self.events = events
        self.tasks = tasks
        self.ports = ports or Ports()
        self.attachments = Attachments(self.ports)
        self.background = Background()
        around = Surroundings(state=root, mounts=run / "datastores", mkfs=mkfs)
        self._releasing: dict[str, Worker] = {}
        self.datastores = Datastores(around, events, self.background)
        self._tool = Lazy(partial(_qemu_img, qemu_img))
        self._clock = clock
        self._entropy = entropy
        events.listen(self._heard)

    @cached_property
    def volumes(self) -> Volumes:
        from thimble.storage.volumes import Volumes

        return Volumes(
            self.datastores,
            self._tool,
            self.attachments.volumes,
            self.background,
            clock=self._clock,
            entropy=self._entropy,
        )

    @cached_property
    def images(self) -> Images:
        from thimble.storage.images import Images

        return Images(self.datastores, self._tool, self.attachments.images)

    async def open(self) -> None:
        """Read the records and begin to mount; never fails, and never waits long, for a single datastore."""
        await self.datastores.open()

    async def settle(self) -> None:
        """After ready: wait for the datastores that are still looked for; then, beside all else, bring the
        records of volumes up to date."""
        await self.datastores.arrivals.settled(SETTLE_S)
        self.volumes.catalog.keep_up()

    async def close(self) -> None:
        """Mounts stay: VMs run on from them."""
        self.datastores.arrivals.close()
        await self.background.close()

    def _heard(self, event: Event) -> None:
        if "volumes" in self.__dict__:  # else nobody has read records of volumes yet
            self.volumes.catalog.heard(event)

    def services(self) -> dict[str, object]:
        """What the API binds verbs to."""
        return {noun: Lazy(partial(self._service, noun)) for noun in ("datastore", "volume", "image")}

    def _service(self, noun: str) -> object:
        from thimble.storage import datastore_verbs, image_verbs, volume_verbs

        made = {
            "datastore": datastore_verbs.DatastoreService,
            "volume": volume_verbs.VolumeService,
            "image": image_verbs.ImageService,
        }
        return made[noun](self)

    @property
    def default(self) -> str:
        return self.datastores.default

    def names(self) -> list[str]:
        return self.datastores.names()

    def homes(self) -> dict[str, Path]:
        """Of every datastore that is there: where VMs' directories are."""
        return {name: homes.Home(root).vms for name, root in self.datastores.mounted().items()}

    def warnings(self) -> tuple[str, ...]:
        """What an operator should know: records that cannot be read, datastores that are not there."""
        return self.datastores.warnings()

    def check_home(self, home: str, path: str) -> list[Reason]:
        """Why the datastore `home` cannot take a VM now."""
        try:
            self.datastores.root(home or self.default)
        except Problem as error:
            return [Reason(message=error.detail, code=error.code, path=path)]
        return []

    def check_disk(self, spec: DiskSpec, home: str, path: str, *, vm: str = "") -> list[Reason]:
        """Why this disk cannot be had; `vm`: the VM whose own use of a volume does not count."""
        from thimble.storage import rules

        home = home or self.default
        found = rules.disk_reasons(spec, path)
        try:
            if spec.volume is not None:
                facts = self.volumes.resolve(spec.volume, home)
                return found + self.attachments.volumes.reasons(facts.ref, f"{path}.volume", vm=vm)
            image = None if spec.image is None else self.images.resolve(spec.image, home)
            free = self.datastores.free(home)
        except Problem as error:
            field = "volume" if spec.volume is not None else "image"
            return [*found, Reason(message=error.detail, code=error.code, path=f"{path}.{field}")]
        return found + rules.new_disk_reasons(
            spec.size_bytes, image, wants_image=spec.image is not None, free=free, path=path
        )

    def disk_warnings(self, spec: DiskSpec, home: str, name: str) -> list[str]:
        """What may go wrong later with a disk that can be made now."""
        if spec.volume is not None or spec.size_bytes is None:
            return []
        return self.size_warnings(spec.size_bytes, home or self.default, name)

    def size_warnings(self, size: int, store: str, name: str) -> list[str]:
        """Is a new disk of `size` on `store` a promise that cannot be kept?"""
        from thimble.storage import rules

        try:
            free, promised = self.datastores.free(store), self.volumes.promised(store)
        except Problem:
            return []  # a blocker says so
        return rules.overcommit(size, promised, free, name)

    def check_image(self, ref: str, home: str, path: str) -> list[Reason]:
        try:
            self.images.resolve(ref, home or self.default)
        except Problem as error:
            return [Reason(message=error.detail, code=error.code, path=path)]
        return []

    def resolve_volume(self, ref: str, home: str) -> VolumeFacts:
        """Raises `Problem` NOT_FOUND, UNAVAILABLE."""
        return self.volumes.resolve(ref, home or self.default)

    def resolve_image(self, ref: str, home: str) -> ImageFacts:
        """Raises `Problem` NOT_FOUND, UNAVAILABLE."""
        return self.images.resolve(ref, home or self.default)

    async def find_volume(self, ref: Ref) -> VolumeFacts:
        """`resolve_volume`, also when its datastore hangs: `Problem` UNAVAILABLE then."""
        volumes = self.volumes  # made here, not in that thread
        return await self.datastores.ask(ref.datastore, lambda _: volumes.resolve(str(ref), ""))

    async def find_image(self, ref: Ref) -> ImageFacts:
        """`resolve_image`, likewise."""
        images = self.images
        return await self.datastores.ask(ref.datastore, lambda _: images.resolve(str(ref), ""))

    async def create_volume(
        self,
        target: Path,
        *,
        size_bytes: int | None,
        image: str | None,
        home: str,
        format: DiskFormat,
        progress: Callable[[float], None] = lambda _: None,
    ) -> int:
        """Make the file `target`, empty or a copy of `image` grown to `size_bytes`; its virtual size.

        Whole or not at all; when `target` is there already it is left as it is. Raises `Problem`, IN_USE when
        somebody else works on a volume of that name.
        """
        file = homes.volume_file(target)
        ref = str(homes.ref_of(self.datastores.holding(target), file))
        with self.attachments.volumes.take(ref, file.vm, "making it"):
            return await self.fill_volume(
                target, size_bytes=size_bytes, image=image, home=home, format=format, progress=progress
            )

    async def fill_volume(
        self,
        target: Path,
        *,
        size_bytes: int | None,
        image: str | None,
        home: str,
        format: DiskFormat,
        made_by: str = "",
        progress: Callable[[float], None] = lambda _: None,
    ) -> int:
        """`create_volume` for who has claimed the volume. `made_by`: a user; else the VM it lies with."""
        if image is None:
            if size_bytes is None:
                raise Problem(Code.INVALID, "a new disk needs a size or an image")
            return await self.volumes.make(
                target, size=size_bytes, image=None, format=format, made_by=made_by, progress=progress
            )
        source = await self.find_image(refs.parse(image, home or self.default))
        holder = made_by or homes.volume_file(target).vm
        with self.attachments.images.take(source.ref, holder, "a copy", Mode.READ):
            return await self.volumes.make(
                target, size=size_bytes, image=source, format=format, made_by=made_by, progress=progress
            )

    async def remove_volume(self, target: Path) -> None:
        """Delete the file `target`; a missing one is fine."""
        await self.volumes.remove(target)

    async def forget_volumes(self, home: str, vm: str) -> None:
        """Who removed the directory of `vm` says so: nothing is known of its volumes any more."""
        await self.volumes.catalog.forget(home, vm)

    async def release_volume(self, home: str, vm: str, file: str, stem: str) -> str:
        """Make a volume in the directory of `vm` one of its own, called about `stem`. Raises `Problem`.

        Its reference, empty when it had gone before. It keeps its identity.
        """
        from thimble.storage import volume_files

        place = self.datastores.home(home)
        old = homes.volume_file(place.vm(vm) / file)
        worker = self._releasing.setdefault(home, Worker(f"release volumes of {home}"))  # one after the other
        name = await worker.run(lambda: volume_files.release(place, old, stem))
        if not name:
            return ""
        self.volumes.catalog.renamed(home, (vm, old.name), ("", name))
        return str(refs.volume(home, "", name))


def _qemu_img(program: str) -> QemuImg:
    from thimble.storage.qemu_img import QemuImg  # with the modules that confine it: only for who needs it

    return QemuImg(program)
