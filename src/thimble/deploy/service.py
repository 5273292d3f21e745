"""The verbs `deploy.*`, and what app needs of this package: `begin` after the start, and the warnings.

One of install, update and rollback at a time. Every one of them is a task; what it would do, and all that
stands in its way, is told beforehand by a dry run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import msgspec

from thimble import __version__
from thimble.contract import deploy as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect, Task
from thimble.contract.verbs import Started
from thimble.core.problem import Code, Problem, Reason
from thimble.core.verdict import Accept, Deny, Ignore
from thimble.deploy import health, look, plan, slots
from thimble.deploy import image as images
from thimble.deploy.devices import Devices
from thimble.deploy.health import Now
from thimble.deploy.install import Host, Installer
from thimble.deploy.plan import InstallPlan
from thimble.deploy.proof import PROVE_S, Proof
from thimble.deploy.slots import Expect
from thimble.deploy.source import Sources, is_url
from thimble.deploy.trust import KeyService
from thimble.deploy.update import StopGuests, Updates
from thimble.host.boot import Init
from thimble.state.events import Events
from thimble.state.tasks import Progress, Tasks, Work
from thimble.storage.service import Storage
from thimble.sys import log


class DeployParts(msgspec.Struct, frozen=True, kw_only=True):
    """What app.py hands over. `ram_vms`: the names of VMs that live in memory only."""

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
    stop_guests: StopGuests
    ram_vms: Callable[[], tuple[str, ...]]


class DeployService:
    def __init__(self, parts: DeployParts) -> None:
        self._parts = parts
        self._run = parts.run
        self._busy = ""
        self.keys = KeyService(
            parts.state,
            parts.run / "deploy",
            durable=parts.durable,
            rev=lambda: parts.events.rev,
        )
        self._sources = Sources(parts.run, parts.storage)
        self._devices = Devices(parts.run, lambda: parts.init.state)
        self._updates = Updates(
            run=parts.run,
            init=parts.init,
            devices=self._devices,
            keys=self.keys,
            expect=self._expect,
            stop_guests=parts.stop_guests,
        )
        self._proof = Proof(
            run=parts.run,
            state=parts.state,
            durable=parts.durable,
            init=parts.init,
            devices=self._devices,
            events=parts.events,
            running=self._updates.running,
            prove=self._prove,
        )

    # ── for app ──────────────────────────────────────────────────────────────────────────────────

    async def begin(self) -> None:
        """After ready, before any VM starts: prove a trial, settle what became of the last one."""
        if not self._parts.hosted:
            await self._proof.begin()

    def warnings(self) -> tuple[str, ...]:
        return self._proof.warnings()

    # ── verbs ────────────────────────────────────────────────────────────────────────────────────

    async def get(self, _call: Call[None]) -> wire.Deploy:
        boot = look.boot_facts(self._run)
        return await asyncio.to_thread(self._view, boot)

    def _view(self, boot: look.BootFacts) -> wire.Deploy:
        shown: tuple[wire.Slot, ...] = ()
        devices = self._devices.all(boot)
        if devices:
            there = self._devices.read(devices[0])
            shown = slots.states(there, self._running(there, boot))
        return wire.Deploy(
            firmware="" if self._parts.hosted else boot.firmware,
            secure_boot=boot.secure_boot,
            medium=boot.medium.kind if boot.medium else "",
            installed=bool(self._devices.array()),
            build=boot.build,
            version=__version__,
            trial=boot.trial,
            slots=shown,
            devices=self._devices.view(boot),
            mirror=self._devices.mirror(),
            last=self._proof.last,
        )

    def _running(self, there: slots.Esp, boot: look.BootFacts) -> str:
        try:
            return self._updates.running(there, boot)
        except Problem:
            return ""

    async def upload(self, call: Call[None]) -> wire.Uploaded | DryRun:
        if call.dry_run:
            return DryRun(possible=True, effects=(Effect(what="keeps an image in memory"),))
        if call.body is None:
            raise Problem(Code.MALFORMED, "there is no upload in this request")
        with self._alone("deploy.upload"):
            path = await self._sources.receive(call.body, call.length, call.query.get("sha256", ""))
            try:
                found = await asyncio.to_thread(images.inspect, path)
            except Problem:
                path.unlink(missing_ok=True)
                raise
        try:
            signer = await self.keys.signer(path, signed=found.uki.signed)
        except Problem:
            signer = ""
        return wire.Uploaded(
            version=found.version,
            build=found.build,
            file_bytes=found.file_bytes,
            sha256=found.sha256,
            signed_by=signer,
        )

    async def install(self, call: Call[wire.InstallRequest]) -> Started | DryRun:
        self._not_hosted()
        decision, facts = await self._decide(call.input)
        if call.dry_run:
            return _told(decision, facts, call.input)
        if isinstance(decision, Ignore):
            raise Problem(Code.CONFLICT, decision.why)
        if isinstance(decision, Deny):
            raise Problem(decision.reasons[0].code, "this cannot be installed", reasons=decision.reasons)

        async def work(progress: Progress) -> dict[str, str]:
            return await self._install(call.input, decision.plan, progress)

        subject = decision.plan.targets[0].disk.device
        return self._start("deploy.install", subject, work, call.user, cancellable=True)

    async def update(self, call: Call[wire.UpdateRequest]) -> Started | DryRun:
        self._not_hosted()
        boot, request = look.boot_facts(self._run), call.input
        if call.dry_run:
            return await self._preview(request, boot)
        self._devices.first(boot)

        async def work(progress: Progress) -> dict[str, str]:
            async with AsyncExitStack() as stack:
                path = await self._source(stack, request.image, boot, progress)
                async with progress.step("check"):
                    new = await self._updates.check(path, request, boot)
                progress.committed()
                slot = await self._updates.write(new, boot, progress)
            trial = await self._updates.offer(slot, "update", boot, request.reboot, progress)
            self._sources.uploaded.unlink(missing_ok=True)
            self._proof.offered(trial)
            await self._updates.restart(
                slot, boot, request.vms, request.reboot, request.guest_timeout_s, progress
            )
            return {"slot": slot, "build": new.build, "version": new.version}

        return self._start("deploy.update", "host", work, call.user, cancellable=True)

    async def rollback(self, call: Call[wire.RollbackRequest]) -> Started | DryRun:
        self._not_hosted()
        boot, request = look.boot_facts(self._run), call.input
        slot, manifest = await self._updates.candidate(boot)
        if call.dry_run:
            what = f"goes back to {manifest.version} (build {manifest.build}) in slot {slot}"
            return DryRun(possible=True, effects=(Effect(what=what), *_restarts(request.reboot)))

        async def work(progress: Progress) -> dict[str, str]:
            trial = await self._updates.offer(slot, "rollback", boot, request.reboot, progress)
            self._proof.offered(trial)
            await self._updates.restart(
                slot, boot, request.vms, request.reboot, request.guest_timeout_s, progress
            )
            return {"slot": slot, "build": manifest.build, "version": manifest.version}

        return self._start("deploy.rollback", "host", work, call.user)

    # ── for the host document ────────────────────────────────────────────────────────────────────

    async def install_from_document(self, wanted: wire.InstallRequest) -> Task | None:
        """Install unattended, unless it is installed or we run from a disk; the task, or None.

        Says on the console what it does, or why not.
        """
        if self._parts.hosted or self._devices.array():
            return None
        decision, facts = await self._decide(wanted)
        if isinstance(decision, Ignore):
            log.say(f"install: {decision.why}")
            return None
        if isinstance(decision, Deny):
            why = "; ".join(reason.message for reason in decision.reasons)
            self._say(f"not installed: {why}")
            return None
        words = plan.effects(decision.plan, wanted)
        self._say("installing, as the host document says: " + "; ".join(words))

        async def work(progress: Progress) -> dict[str, str]:
            try:
                result = await self._install(wanted, decision.plan, progress)
            except Problem as problem:
                self._say(f"not installed: {problem.detail}")
                raise
            return result

        return self._start("deploy.install", decision.plan.targets[0].disk.device, work, "").task

    # ── the work ─────────────────────────────────────────────────────────────────────────────────

    async def _install(
        self, request: wire.InstallRequest, wanted: InstallPlan, progress: Progress
    ) -> dict[str, str]:
        boot = look.boot_facts(self._run)
        async with AsyncExitStack() as stack:
            path = await self._source(stack, request.image, boot, progress)
            async with progress.step("check"):
                image = await asyncio.to_thread(images.inspect, path, sha256=request.sha256)
                if image.build != boot.build:  # what runs is believed already
                    await self.keys.signer(path, signed=image.uki.signed)
                reasons = plan.image_fits(image.file_bytes)
                if reasons:
                    raise Problem(reasons[0].code, reasons[0].message, reasons=tuple(reasons))
            parts = self._parts
            host = Host(state=parts.state, run=parts.run, taken=tuple(parts.storage.names()))
            installer = Installer(host, self._devices)
            if wanted.join:
                await installer.join(wanted, boot, image, progress)
            else:
                await installer.install(wanted, image, progress)
        disks = ", ".join(target.disk.device for target in wanted.targets)
        self._say(f"installed {image.version} on {disks}")
        if request.reboot:
            async with progress.step("guests"):
                await parts.stop_guests(120.0, wire.Guests.POLICY)
            async with progress.step("restart"):
                parts.init.tell("reboot")
        return {"disk": disks, "build": image.build, "version": image.version}

    async def _source(
        self, stack: AsyncExitStack, name: str, boot: look.BootFacts, progress: Progress
    ) -> Path:
        async with progress.step("source"):
            opened = self._sources.opened(name, boot, lambda part: progress.at(0.1 * part))
            return await stack.enter_async_context(opened)

    async def _decide(self, request: wire.InstallRequest) -> tuple[plan.Decision, plan.Facts]:
        facts = await asyncio.to_thread(self._facts, request)
        return plan.install(request, facts), facts

    def _facts(self, request: wire.InstallRequest) -> plan.Facts:
        boot = look.boot_facts(self._run)
        members = tuple(look.disk_of(part) for part in look.members(self._parts.init.state[1]))
        booted = boot.medium.disk if boot.medium else ""
        found = look.all_disks(self._run)
        return plan.Facts(
            disks=found,
            booted=booted,
            members=members,
            mirrored=bool(self._devices.array()) and bool(self._devices.all(boot)),
            build=boot.build if not request.image else "",
            version=__version__,
            lost_vms=self._parts.ram_vms(),
            named=look.named((request.disk, request.mirror), found, (booted, *members)),
        )

    async def _preview(self, request: wire.UpdateRequest, boot: look.BootFacts) -> DryRun:
        """What an update would do; an image on the web is only looked at when it comes."""
        effects = list(_restarts(request.reboot))
        try:
            self._devices.first(boot)
            if is_url(request.image):
                effects.insert(0, Effect(what=f"fetches {request.image}, and checks it"))
            else:
                found = await self._updates.check(self._sources.local(request.image), request, boot)
                what = f"writes {found.version} (build {found.build}) into the slot that does not run"
                effects.insert(0, Effect(what=what))
        except Problem as problem:
            reasons = problem.reasons or (Reason(message=problem.detail, code=problem.code),)
            return DryRun(possible=False, blockers=reasons)
        return DryRun(possible=True, effects=tuple(effects))

    def _start(
        self, verb: str, subject: str, work: Work, owner: str, *, cancellable: bool = False
    ) -> Started:
        if self._busy:
            raise _busy(self._busy)

        async def alone(progress: Progress) -> dict[str, str] | None:
            with self._alone(verb):
                return await work(progress)

        task = self._parts.tasks.start(verb, subject, alone, owner=owner, cancellable=cancellable)
        return Started(task=task, subject=subject)

    @contextmanager
    def _alone(self, verb: str) -> Iterator[None]:
        """For the time of the block nothing else of this package may begin. Raises `Problem` CONFLICT."""
        if self._busy:
            raise _busy(self._busy)
        self._busy = verb
        try:
            yield
        finally:
            self._busy = ""

    async def _expect(self) -> Expect:
        return await health.expectations(self._now())

    async def _prove(self, expect: Expect) -> str:
        return await health.prove(expect, self._now, within=PROVE_S)

    def _now(self) -> Now:
        return Now(
            state=self._parts.init.state[0],
            datastores=tuple(sorted(self._parts.storage.homes())),
            fingerprint=self._parts.fingerprint,
            port=self._parts.port,
        )

    def _not_hosted(self) -> None:
        if self._parts.hosted:
            raise Problem(
                Code.UNSUPPORTED,
                "this agent runs inside another operating system, which boots itself",
                hint="Update Thimble there as you installed it.",
            )

    def _say(self, line: str) -> None:
        log.say(line)
        if self._parts.init.present:
            self._parts.init.tell("say", line=line)


def _busy(verb: str) -> Problem:
    return Problem(Code.CONFLICT, f"{verb} is at work", hint="Wait for its task: `thimble task list`.")


def _restarts(how: wire.Reboot) -> tuple[Effect, ...]:
    words = {
        wire.Reboot.KEXEC: "stops the VMs and starts it without the firmware; goes back unless it is good",
        wire.Reboot.FIRMWARE: "stops the VMs and reboots into it; goes back unless it is good",
        wire.Reboot.NONE: "starts it at the next reboot; goes back unless it is good",
    }
    return (Effect(what=words[how]),)


def _told(decision: plan.Decision, facts: plan.Facts, request: wire.InstallRequest) -> DryRun:
    if isinstance(decision, Deny):
        return DryRun(possible=False, blockers=decision.reasons)
    if isinstance(decision, Ignore):
        return DryRun(possible=True, warnings=(decision.why,))
    assert isinstance(decision, Accept)
    words = plan.effects(decision.plan, request)
    return DryRun(
        possible=True,
        effects=tuple(Effect(what=line) for line in words),
        warnings=plan.warnings(facts),
    )
