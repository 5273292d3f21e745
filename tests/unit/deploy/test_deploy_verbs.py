"""The verbs `deploy.*` at their door: what a dry run tells, what is refused, what the act does then."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from deploy_world import FakeHealth, FakeInit, FakeKeys, context, finished, image_bytes, made, stick

from thimble.contract.call import Call
from thimble.contract.common import DryRun, TaskState
from thimble.contract.deploy import (
    Deploy,
    Guests,
    InstallRequest,
    KeyCreate,
    PolicyChange,
    SlotState,
    Uploaded,
)
from thimble.contract.document import InstallEntry
from thimble.core.problem import Code, Problem
from thimble.core.units import GIB
from thimble.deploy import image_source, probe
from thimble.deploy.boot_files import Expect
from thimble.deploy.context import DeployContext
from thimble.deploy.disk_facts import DiskFacts, PartFacts
from thimble.deploy.image import BootImage
from thimble.deploy.installer import Installer
from thimble.deploy.plan import InstallPlan
from thimble.deploy.service import DeployService
from thimble.deploy.trust import KeyService
from thimble.host.pid1 import BootFacts, Medium

BLANK = DiskFacts(device="/dev/vdb", size_bytes=20 * GIB, serial="one")
WINDOWS = DiskFacts(
    device="/dev/vdb", size_bytes=20 * GIB, serial="one", parts=(PartFacts(device="/dev/vdb1", kind="ntfs"),)
)


class World:
    """A host booted from a stick, with one more disk, `disk`; `installed` notes what is installed on it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.image = made(root / "old.efi", kernel=b"old")
        medium = Medium(disk="/dev/none", esp=str(stick(root / "esp", self.image)), kind="disk")
        self.init = FakeInit(BootFacts(firmware="uefi", slot="a", build=self.image.build, medium=medium))
        self.init.state = ("ram", "there is no state partition")
        self.keys = FakeKeys()
        self.deploy = context(root, self.init, health=FakeHealth(Expect()), keys=self.keys)
        self.service = DeployService(self.deploy)
        self.disk = BLANK
        self.installed: list[tuple[str, str]] = []
        self.fails: Problem | None = None
        world = self

        async def install(_: Installer, wanted: InstallPlan, image: BootImage, _progress: Any) -> None:
            if world.fails is not None:
                raise world.fails
            world.installed.append((wanted.targets[0].disk.device, image.build))

        monkeypatch.setattr(Installer, "install", install)
        monkeypatch.setattr(probe, "all_disks", lambda _: (self.disk,))
        monkeypatch.setattr(probe, "named", lambda words, *_: dict.fromkeys(words, self.disk.device))
        monkeypatch.setattr(image_source, "spare_memory", lambda: 1 << 30)

    def dry(self, verb: str, input: Any = None, **more: Any) -> DryRun:
        answer = asyncio.run(getattr(self.service, verb)(Call(input=input, dry_run=True, **more)))
        assert isinstance(answer, DryRun)
        return answer

    def install(self, **asked: Any) -> dict[str, str]:
        request = InstallRequest(disk="serial:one", **asked)
        return finished(self.deploy, lambda: self.service.install(Call(input=request)))

    def from_document(self, **entry: Any) -> Any:
        return asyncio.run(self.service.install_from_document(InstallEntry(disk="serial:one", **entry)))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def refusal(work: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        work()
    return caught.value


# ── install ──────────────────────────────────────────────────────────────────────────────────────


def test_an_installation_is_told_by_the_dry_run_then_done(world: World) -> None:
    told = world.dry("install", InstallRequest(disk="serial:one", reboot=True))
    assert told.possible and told.effects[0].what.startswith("makes new partitions on /dev/vdb")
    assert told.effects[-1].what == "reboots the host" and world.installed == []
    result = world.install(reboot=True)
    assert world.installed == [("/dev/vdb", world.image.build)]
    assert result == {"disk": "/dev/vdb", "build": world.image.build, "version": "0.1.0"}
    assert world.init.lines == ["installed 0.1.0 on /dev/vdb"]
    assert world.init.told == ["say", "guests", "reboot"] and world.init.stopped == [(120.0, None)]


def test_every_blocker_of_an_installation_is_told_and_refuses_it(world: World) -> None:
    world.disk = WINDOWS
    told = world.dry("install", InstallRequest(disk="serial:one"))
    problem = refusal(world.install)
    assert not told.possible and told.effects == () and problem.reasons == told.blockers
    assert (problem.code, problem.detail) == (Code.CONFLICT, "this cannot be installed")
    assert "ask for erase" in problem.reasons[0].message


def test_what_is_installed_already_is_a_conflict_for_who_asks_and_nothing_to_do_for_the_document(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.disk = DiskFacts(device="/dev/vdb", size_bytes=20 * GIB, installed=world.image.build)
    told = world.dry("install", InstallRequest(disk="serial:one"))
    problem = refusal(world.install)
    assert not told.possible and problem.code is Code.CONFLICT
    assert problem.detail == told.blockers[0].message and "is installed on /dev/vdb already" in problem.detail
    assert world.from_document() is None
    assert world.installed == [] and world.init.lines == []


def test_an_image_nobody_trusted_signed_is_not_installed(world: World) -> None:
    world.keys.refusal = Problem(Code.FORBIDDEN, "the image is not signed")
    uploaded = world.deploy.images.uploaded
    uploaded.parent.mkdir(parents=True)
    uploaded.write_bytes(image_bytes(kernel=b"another"))
    assert refusal(lambda: world.install(image="upload")).code is Code.FORBIDDEN
    world.install()  # what runs is trusted already
    assert world.installed == [("/dev/vdb", world.image.build)]


def test_the_document_installs_unattended_and_says_so_on_the_console(world: World) -> None:
    task = world.from_document()
    assert task.state is TaskState.DONE and world.installed
    assert world.init.lines[0].startswith("installing, as the host document says: makes new partitions")
    assert world.init.lines[1:] == ["installed 0.1.0 on /dev/vdb"]


def test_what_the_document_cannot_install_is_said_on_the_console(world: World) -> None:
    world.disk = WINDOWS
    assert world.from_document() is None
    assert len(world.init.lines) == 1 and world.init.lines[0].startswith("not installed: /dev/vdb")
    world.disk, world.fails = BLANK, Problem(Code.FAILED, "the disk is dead")
    world.init.lines.clear()
    assert world.from_document().state is TaskState.FAILED
    assert world.init.lines[-1] == "not installed: the disk is dead"


# ── upload, policy, keys, view ───────────────────────────────────────────────────────────────────


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1000):
        yield data[at : at + 1000]


def upload(world: World, data: bytes, *, length: int | None = None, sha256: str = "") -> Uploaded:
    call: Call[None] = Call(
        input=None, body=pieces(data), length=length, query={"sha256": sha256} if sha256 else {}
    )
    answer = asyncio.run(world.service.upload(call))
    assert isinstance(answer, Uploaded)
    return answer


def test_an_upload_is_kept_and_described(world: World) -> None:
    data = image_bytes(version="1.2.3", kernel=b"k" * 9999)
    digest = hashlib.sha256(data).hexdigest()
    found = upload(world, data, length=len(data), sha256=digest)
    assert (found.version, found.sha256, found.file_bytes, found.signed_by) == (
        "1.2.3",
        digest,
        len(data),
        "tests",
    )
    assert world.deploy.images.uploaded.read_bytes() == data
    world.keys.refusal = Problem(Code.FORBIDDEN, "the image is not signed")
    assert upload(world, data).signed_by == ""


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"length": 5}, Code.MALFORMED, "was cut short"),
        ({"sha256": "0" * 64}, Code.INVALID, "damaged on its way"),
        ({"length": 2 << 30}, Code.NO_MEMORY, "no room in memory"),
    ],
)
def test_an_upload_that_is_not_whole_is_refused_and_leaves_nothing(
    world: World, options: dict[str, Any], code: Code, words: str
) -> None:
    problem = refusal(lambda: upload(world, image_bytes(), **options))
    assert problem.code is code and words in problem.detail
    assert not list((world.deploy.parts.run / "deploy").glob("upload*"))
    assert world.deploy.holder is None


def test_an_upload_that_is_no_image_is_dropped(world: World) -> None:
    assert refusal(lambda: upload(world, b"hello")).code is Code.INVALID
    assert not world.deploy.images.uploaded.exists()


def test_a_dry_run_of_an_upload_tells_whether_there_is_room(world: World) -> None:
    assert world.dry("upload").effects[0].what == "keeps an image in memory"
    told = world.dry("upload", length=2 << 30)
    assert not told.possible and told.blockers[0].code is Code.NO_MEMORY


def test_the_policy_is_changed_as_the_dry_run_tells(world: World) -> None:
    wanted = PolicyChange(vms=Guests.SAVE)
    assert [effect.what for effect in world.dry("change", wanted).effects] == ["sets vms of updates to save"]
    assert world.service.policy.value.vms is Guests.POLICY
    answer = asyncio.run(world.service.change(Call(input=wanted)))
    assert isinstance(answer, Deploy) and answer.policy.vms is Guests.SAVE
    assert world.dry("change", wanted) == DryRun(possible=True), "it is so already"
    told = world.dry("change", PolicyChange(url="ftp://x"))
    problem = refusal(lambda: asyncio.run(world.service.change(Call(input=PolicyChange(url="ftp://x")))))
    assert not told.possible and problem.reasons == told.blockers


def test_the_host_tells_what_it_was_started_from(world: World) -> None:
    found = asyncio.run(world.service.get(Call(input=None)))
    assert [slot.state for slot in found.slots] == [SlotState.GOOD, SlotState.EMPTY]
    assert (found.build, found.medium, found.installed, found.mirror) == (
        world.image.build,
        "disk",
        False,
        "none",
    )


def test_images_from_the_web_come_one_after_the_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[str] = []

    async def fetch(url: str, target: Path, **_: Any) -> None:
        there.append(url)
        assert not target.exists()
        await asyncio.to_thread(target.write_text, url)

    monkeypatch.setattr("thimble.sys.fetch.fetch", fetch)

    async def use(url: str) -> None:
        async with world.service.opened(url) as path:
            for _ in range(20):
                await asyncio.sleep(0)
                assert path.read_text() == url
        assert not path.exists() or path.read_text() != url

    async def both() -> None:
        await asyncio.gather(use("http://a/1.efi"), use("http://b/2.efi"))

    asyncio.run(both())
    assert there == ["http://a/1.efi", "http://b/2.efi"]


def test_making_the_service_touches_nothing_and_the_first_look_tidies(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = world.deploy.parts.run / "deploy" / "vda2-0011"
    left.mkdir(parents=True)
    DeployService(DeployContext(world.deploy.parts))
    assert left.exists()
    asyncio.run(world.service.begin())
    assert not left.exists()


def test_two_keys_of_one_name_at_once_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thimble.deploy.trust.certificate_reasons", lambda *_: [])
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    keys = KeyService(tmp_path, tmp_path / "run", durable=False, rev=lambda: 1, built_in=tmp_path / "none")

    async def story() -> list[Any]:
        call = Call(input=KeyCreate(name="us", certificate=pem))
        return await asyncio.gather(keys.create(call), keys.create(call), return_exceptions=True)

    key, problem = asyncio.run(story())
    assert key.name == "us" and not key.built_in
    assert isinstance(problem, Problem) and problem.reasons[0].code is Code.EXISTS
    told = asyncio.run(keys.delete(Call(input=None, path={"key": "us"}, dry_run=True)))
    assert (
        isinstance(told, DryRun) and told.effects[0].what == "accepts images signed with the key us no longer"
    )


def test_a_key_of_the_image_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "maker.pem").write_text("pem")
    keys = KeyService(tmp_path, tmp_path / "run", durable=False, rev=lambda: 1, built_in=tmp_path / "built")
    problem = refusal(lambda: asyncio.run(keys.delete(Call(input=None, path={"key": "maker"}))))
    assert problem.code is Code.CONFLICT and problem.hint == "Build it without."
    assert (
        refusal(lambda: asyncio.run(keys.delete(Call(input=None, path={"key": "x"})))).code is Code.NOT_FOUND
    )
