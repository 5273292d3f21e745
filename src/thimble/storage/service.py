"""The seam of storage: `Storage` for VMs and for `app`, and one small class per noun for the API.

Checks answer with reasons and touch nothing but `stat`; what they found is checked again by whoever acts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from thimble.contract.vm import DiskFormat, DiskSpec
from thimble.core.lazy import Lazy
from thimble.core.problem import Code, Problem, Reason
from thimble.state.events import Events
from thimble.state.tasks import Tasks
from thimble.storage.datastores import Datastores

if TYPE_CHECKING:
    from thimble.storage.images import Images
    from thimble.storage.qemu_img import QemuImg
    from thimble.storage.records import ImageFacts, VolumeFacts
    from thimble.storage.volumes import Volumes


def _nobody() -> dict[str, str]:
    return {}


class Storage:
    """`root`: the state directory; `run`: for mounts. `qemu_img` and `mkfs`: programs to use."""

    def __init__(
        self,
        root: Path,
        run: Path,
        *,
        events: Events,
        tasks: Tasks,
        qemu_img: str = "qemu-img",
        mkfs: str = "mkfs.ext4",
    ) -> None:
        self.events = events
        self.tasks = tasks
        self.datastores = Datastores(root, run / "datastores", events, mkfs=mkfs)
        self._qemu_img = qemu_img
        #: volume ref → id of the VM that uses it; set by `app` from the VM service.
        self.users: Callable[[], dict[str, str]] = _nobody
        #: image ref → id of a VM whose CD-ROM or direct boot names it; set likewise.
        self.image_users: Callable[[], dict[str, str]] = _nobody

    @cached_property
    def volumes(self) -> Volumes:
        from thimble.storage.volumes import Volumes

        return Volumes(self.datastores, self._tool)

    @cached_property
    def images(self) -> Images:
        from thimble.storage.images import Images

        return Images(self.datastores, self._tool)

    @cached_property
    def _tool(self) -> QemuImg:
        from thimble.storage.qemu_img import QemuImg

        return QemuImg(self._qemu_img)

    async def open(self) -> None:
        """Read the records and mount; never fails for a single datastore."""
        self.datastores.open()

    async def close(self) -> None:
        """Mounts stay: VMs run on from them."""
        self.datastores.close()

    def services(self) -> dict[str, object]:
        """What the API binds verbs to."""
        return {noun: Lazy(partial(self._service, noun)) for noun in ("datastore", "volume", "image")}

    def _service(self, noun: str) -> object:
        from thimble.storage import verbs

        made = {
            "datastore": verbs.DatastoreService,
            "volume": verbs.VolumeService,
            "image": verbs.ImageService,
        }
        return made[noun](self)

    @property
    def default(self) -> str:
        return self.datastores.default

    def names(self) -> list[str]:
        return self.datastores.names()

    def homes(self) -> dict[str, Path]:
        """Of every mounted datastore: where VMs' directories are."""
        return {name: root / "vms" for name, root in self.datastores.mounted().items()}

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
                return found + rules.free_reasons(facts, self.users(), vm, f"{path}.volume")
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
            free = self.datastores.free(store)
        except Problem:
            return []  # a blocker says so
        warning = rules.overcommit(size, self.volumes.promised(store), free, name)
        return [warning] if warning else []

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

        Whole or not at all; when `target` is there already it is left as it is. Raises `Problem`.
        """
        source = None if image is None else self.resolve_image(image, home)
        if source is None and size_bytes is None:
            raise Problem(Code.INVALID, "a new disk needs a size or an image")
        return await self.volumes.make(
            target, size=size_bytes, image=source, format=format, progress=progress
        )

    async def remove_volume(self, target: Path) -> None:
        """Delete the file `target`; a missing one is fine."""
        await self.volumes.remove(target)
