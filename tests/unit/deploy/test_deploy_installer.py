"""An installation on disks that are files and directories: what it makes, and what is left where it fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from deploy_world import BIOS, UEFI, made, starts, stick

from thimble.contract.common import Task, TaskState
from thimble.core.problem import Code, Problem
from thimble.core.units import GIB
from thimble.deploy.devices import Devices
from thimble.deploy.disk_facts import DiskFacts, PartFacts
from thimble.deploy.image import BootImage
from thimble.deploy.installer import Installer
from thimble.deploy.mounts import Mounts
from thimble.deploy.plan import Fresh, InstallPlan, Renew, parts
from thimble.deploy.state_array import Carried
from thimble.host.pid1 import BootFacts, Medium
from thimble.medium import layout
from thimble.state.tasks import Progress
from thimble.storage import disks as stores
from thimble.storage.records import DatastoreRecord
from thimble.sys import block, command, raid

NOT_FOR_THE_NEW_ONE = ("datastores", "lost+found", "deploy")


class WatchedMounts(Mounts):
    """Directories stand for devices; what is mounted now is in `now`."""

    def __init__(self, run: Path, step: Callable[[str], None]) -> None:
        super().__init__(run)
        self.now: list[str] = []
        self._step = step

    @contextmanager
    def mounted(
        self, device: str, *, kind: str = "vfat", write: bool = False, data: str = ""
    ) -> Iterator[Path]:
        self._step(f"mount {Path(device).name}")
        with super().mounted(device, kind=kind, write=write, data=data) as root:
            self.now.append(device)
            try:
                yield root
            finally:
                self.now.remove(device)


class World:
    """`fails`: where it does not go on. `steps`: all that was done, in order."""

    def __init__(self, root: Path, image: BootImage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.image = root, image
        self.fails = ""
        self.steps: list[str] = []
        self.arrays: list[str] = []
        self.members: tuple[Any, ...] = ()
        for name in ("state", "run/document"):
            (root / name).mkdir(parents=True)
        (root / "md").mkdir()
        (root / "state/users").mkdir()
        (root / "state/users/admin.json").write_text("admin")
        (root / "state/note").write_text("note")
        for name in NOT_FOR_THE_NEW_ONE:
            (root / "state" / name).mkdir()
        (root / "run/document/thimble.toml").write_text("format = 1\n")
        self.mounts = WatchedMounts(root / "run", self.step)
        self.devices = Devices(self.mounts, lambda: ("partition", str(root / "md_state")))
        carried = Carried(state=root / "state", run=root / "run", taken=("local", "data"))
        self.installer = Installer(carried, self.devices, self.mounts)
        monkeypatch.setattr(command, "run", self.run)
        monkeypatch.setattr(block, "wipe_ends", lambda device, _: self.step(f"wipe {Path(device).name}"))
        monkeypatch.setattr(block, "is_block", lambda _: True)
        monkeypatch.setattr(block, "read_ends", lambda *_: (0, b"", b""))
        monkeypatch.setattr(stores, "make_file_system", self.make_file_system)
        monkeypatch.setattr(raid, "create", self.create)
        monkeypatch.setattr(raid, "stop", self.stop)
        monkeypatch.setattr(raid, "join", lambda _, device: self.step(f"join {Path(device).name}"))
        monkeypatch.setattr(raid, "leave", lambda _, device: self.step(f"leave {Path(device).name}"))
        monkeypatch.setattr(raid, "status", lambda _: raid_status(self.members))

    def step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.fails:
            raise Problem(Code.FAILED, f"no {name} today")

    async def run(self, argv: list[str], **_: Any) -> None:
        self.step(f"{argv[0]} {Path(argv[-1]).name}")

    async def make_file_system(self, device: str, mkfs: str) -> None:
        self.step(f"{mkfs} {Path(device).name}")

    def create(self, device: str, name: str) -> str:
        self.step(f"create on {Path(device).name}")
        self.arrays.append(name)
        return str(self.root / "md")

    def stop(self, array: str) -> None:
        assert array not in self.mounts.now, "stopped while it is mounted"
        self.arrays.pop()
        self.step("stop array")

    def disk(self, name: str) -> DiskFacts:
        """Its partitions 2 and 3 are directories, 1 and itself files."""
        for path in (self.root / name, self.root / f"{name}1"):
            path.write_bytes(bytes(1 << 16))
        for number in (2, 3):
            (self.root / f"{name}{number}").mkdir()
        return DiskFacts(device=str(self.root / name), size_bytes=20 * GIB)

    def install(self, *targets: Fresh | Renew) -> None:
        asyncio.run(self.installer.install(InstallPlan(targets=targets), self.image, self.progress()))

    def progress(self) -> Progress:
        task = Task(id="t", verb="deploy.install", subject="vda", state=TaskState.RUNNING)
        return Progress(task, lambda _: None, lambda point: self.step(point))

    def loader(self, name: str) -> bool:
        """Does a BIOS find anything on the disk?"""
        return any((self.root / name).read_bytes())


def raid_status(members: tuple[Any, ...]) -> Any:
    class Status:
        whole = True

    found: Any = Status()
    found.members = members
    return found


@pytest.fixture
def image(tmp_path: Path) -> BootImage:
    return made(tmp_path / "image.efi", kernel=b"kernel" * 99)


@pytest.fixture
def worlds(tmp_path: Path, image: BootImage, monkeypatch: pytest.MonkeyPatch) -> Callable[[], World]:
    """Each call is a machine of its own."""
    count = 0

    def world() -> World:
        nonlocal count
        count += 1
        (tmp_path / str(count)).mkdir()
        return World(tmp_path / str(count), image, monkeypatch)

    return world


def fresh(world: World, name: str = "vda") -> Fresh:
    disk = world.disk(name)
    return Fresh(disk=disk, parts=parts(disk))


def renewed(world: World, name: str = "vda", *, keep: bool = True) -> Renew:
    """A disk with an installation of an older image."""
    disk = world.disk(name)
    (world.root / f"{name}2").rmdir()
    stick(world.root / f"{name}2", made(world.root / "old.efi", kernel=b"old"))
    found = tuple(
        PartFacts(device=f"{disk.device}{number}", name=label, start=number << 20)
        for number, label in enumerate(
            (layout.GRUB, layout.BOOT, layout.DOCUMENT, layout.STATE, layout.DATA), start=1
        )
    )
    return Renew(disk=msgspec.structs.replace(disk, parts=found), keep_state=keep)


def test_a_blank_disk_gets_everything_in_order(worlds: Callable[[], World]) -> None:
    world = worlds()
    world.install(fresh(world))
    root = world.root
    assert starts(root / "vda2", UEFI) == starts(root / "vda2", BIOS) == "a"
    assert world.loader("vda") and world.loader("vda1")
    assert (root / "vda3/thimble.toml").read_text() == "format = 1\n"
    assert (root / "vda3/README.txt").exists()
    copied = {path.name for path in (root / "md").iterdir()}
    assert copied == {"users", "note", "storage"} and (root / "md/users/admin.json").read_text() == "admin"
    record = msgspec.json.decode((root / "md/storage/data2.json").read_bytes())
    store = msgspec.convert(record["record"], DatastoreRecord)
    assert (store.device, store.default) == (f"{root}/vda5", True), "`data` is taken"
    shown = [step for step in world.steps if " " in step]
    assert shown == [
        "wipe vda", "sfdisk vda", *(f"wipe vda{n}" for n in range(1, 6)), "mkfs.ext4 vda5",
        "mkfs.vfat vda3", "mount vda3", "create on vda4", "mkfs.ext4 md", "mount md", "stop array",
        "mkfs.vfat vda2", "mount vda2",
    ]  # fmt: skip
    assert world.steps.index("deploy.install/EFI/BOOT/BOOTX64.EFI") > world.steps.index("stop array")


def test_wherever_it_fails_the_array_is_stopped_and_nothing_starts_before_the_end(
    worlds: Callable[[], World],
) -> None:
    good = worlds()
    good.install(fresh(good))
    assert Counter(good.steps).most_common(1)[0][1] == 1, "each is a step of its own"
    last = good.steps.index("deploy.install/EFI/BOOT/BOOTX64.EFI")
    for number, step in enumerate(good.steps):
        world = worlds()
        world.fails = step
        with pytest.raises(Problem, match=f"no {step} today"):
            world.install(fresh(world))
        assert world.steps[: number + 1] == good.steps[: number + 1]
        later = world.steps[number + 1 :]
        assert later in ([], ["stop array"]), f"after {step}"
        assert world.arrays == [] and world.mounts.now == [], step
        if number < last:
            assert not (world.root / "vda2/EFI/BOOT/BOOTX64.EFI").exists(), step
        if number <= last:
            assert not world.loader("vda"), step


def test_a_mirror_from_the_start_is_in_the_array_and_starts_as_well(worlds: Callable[[], World]) -> None:
    world = worlds()
    world.install(fresh(world, "vda"), fresh(world, "vdb"))
    assert world.steps.index("mount md") < world.steps.index("join vdb4") < world.steps.index("stop array")
    assert starts(world.root / "vda2", UEFI) == starts(world.root / "vdb2", BIOS) == "a"
    names = sorted(path.name for path in (world.root / "md/storage").iterdir())
    assert names == ["data2.json", "data3.json"]


@pytest.mark.parametrize("keep", [True, False])
def test_a_renewed_installation_keeps_its_disk_and_its_state_if_asked(
    worlds: Callable[[], World], image: BootImage, *, keep: bool
) -> None:
    world = worlds()
    world.install(renewed(world, keep=keep))
    assert not any(step.startswith(("wipe", "sfdisk", "mkfs.vfat")) for step in world.steps)
    assert ("create on vda4" in world.steps) is not keep
    assert (world.root / "vda2/thimble/a.efi").read_bytes() == image.path.read_bytes()
    assert starts(world.root / "vda2", UEFI) == "a"


def test_a_renewal_that_fails_starts_nothing_half(worlds: Callable[[], World], image: BootImage) -> None:
    good = worlds()
    good.install(renewed(good))
    for step in good.steps:
        world = worlds()
        world.fails = step
        with pytest.raises(Problem):
            world.install(renewed(world))
        assert world.mounts.now == []
        loader = world.root / "vda2/EFI/BOOT/BOOTX64.EFI"
        assert not loader.exists() or starts(world.root / "vda2", UEFI) == "a", step


class Member:
    def __init__(self, device: str, state: str) -> None:
        self.device, self.state = device, state


def test_a_disk_that_joins_takes_the_place_of_a_faulty_one_and_starts_what_we_start(
    worlds: Callable[[], World], image: BootImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds()
    truth = stick(world.root / "esp", image)
    monkeypatch.setattr(world.devices, "array", lambda: str(world.root / "md_state"))
    world.members = (Member("/dev/vdx4", "faulty"), Member("/dev/vda4", "in_sync"))
    medium = Medium(disk="/dev/vda", esp=str(truth), kind="disk")
    boot = BootFacts(firmware=UEFI, slot="a", build=image.build, medium=medium)
    plan = InstallPlan(targets=(fresh(world, "vdb"),), join=True)
    asyncio.run(world.installer.join(plan, boot, image, world.progress()))
    assert world.steps.index("leave vdx4") < world.steps.index("join vdb4")
    assert "leave vda4" not in world.steps
    assert starts(world.root / "vdb2", UEFI) == starts(world.root / "vdb2", BIOS) == "a"
    assert world.loader("vdb") and world.mounts.now == []
