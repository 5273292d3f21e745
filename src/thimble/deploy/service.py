"""The verbs `deploy.*`, and what app needs of this package: `begin` after the start, and the warnings.

One of install, update and rollback at a time. Every one of them is a task; what it would do, and all that
stands in its way, is told beforehand by a dry run.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

from thimble import __version__
from thimble.contract import deploy as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect
from thimble.contract.verbs import Started
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.deploy import image as images
from thimble.deploy import policy, probe, slots
from thimble.deploy.image_source import is_url
from thimble.deploy.installing import InstallVerbs
from thimble.deploy.policy import Restart
from thimble.host.pid1 import BootFacts
from thimble.state.tasks import Progress


class DeployService(InstallVerbs):
    # ── for app ──────────────────────────────────────────────────────────────────────────────────

    async def begin(self) -> None:
        """After ready, before any VM starts: prove a trial, settle what became of the last one."""
        if not self._parts.hosted:
            await self._proof.begin()

    def warnings(self) -> tuple[str, ...]:
        said = " ".join(self._parts.init.warnings)
        missing = self._devices.mirror() == "degraded" and "mirror" not in said
        lost = ("a boot disk is missing: put another in its place with `thimble host install --mirror DISK`",)
        return (*self._proof.warnings(), *(lost if missing else ()))

    def opened(self, name: str) -> AbstractAsyncContextManager[Path]:
        """The image that `name` stands for, as in a request; empty for the running one. Raises `Problem`."""
        return self._sources.opened(name, probe.boot_facts(self._parts.init))

    # ── verbs ────────────────────────────────────────────────────────────────────────────────────

    async def get(self, _call: Call[None]) -> wire.Deploy:
        boot = probe.boot_facts(self._parts.init)
        return await asyncio.to_thread(self._view, boot)

    def _view(self, boot: BootFacts) -> wire.Deploy:
        shown: tuple[wire.Slot, ...] = ()
        devices = self._devices.all(boot)
        if devices:
            there = self._devices.read(devices[0])
            shown = slots.states(there, boot.slot)
        return wire.Deploy(
            firmware="" if self._parts.hosted else boot.firmware,
            secure_boot=boot.secure_boot,
            medium=boot.medium.kind if boot.medium and (devices or boot.medium.kind == "cd") else "",
            installed=bool(self._devices.array()),
            build=boot.build,
            version=__version__,
            trial=any(slot.running and slot.state is wire.SlotState.TRIAL for slot in shown),
            slots=shown,
            devices=self._devices.view(boot),
            mirror=self._devices.mirror(),
            last=self._proof.last,
            policy=self.policy.value,
        )

    async def change(self, call: Call[wire.PolicyChange]) -> wire.Deploy | DryRun:
        """How it is updated where a request does not say."""
        old = self.policy.value
        new = policy.changed(old, call.input)
        reasons = policy.url_reasons(new.url)
        if call.dry_run:
            effects = () if reasons else tuple(Effect(what=line) for line in policy.words(old, new))
            return DryRun(possible=not reasons, effects=effects, blockers=tuple(reasons))
        refuse(reasons, "this cannot be how the host is updated")
        self.policy.put(new)
        return await self.get(call)  # type: ignore[arg-type]

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

    async def update(self, call: Call[wire.UpdateRequest]) -> Started | DryRun:
        self._not_hosted()
        boot, request = probe.boot_facts(self._parts.init), call.input
        image, how = self.policy.image(request), self.policy.restart(request)
        if call.dry_run:
            return await self._preview(image, request, how, boot)
        self._devices.first(boot)

        async def work(progress: Progress) -> dict[str, str]:
            async with AsyncExitStack() as stack:
                path = await self._source(stack, image, boot, progress)
                async with progress.step("check"):
                    new = await self._updates.check(path, request, boot)
                progress.committed()
                slot = await self._updates.write(new, boot, progress)
            trial = await self._updates.offer(slot, "update", boot, how.reboot, progress)
            self._sources.uploaded.unlink(missing_ok=True)
            self._proof.offered(trial)
            await self._updates.restart(slot, boot, how, progress)
            return {"slot": slot, "build": new.build, "version": new.version}

        return self._start("deploy.update", "host", work, call.user, cancellable=True)

    async def rollback(self, call: Call[wire.RollbackRequest]) -> Started | DryRun:
        self._not_hosted()
        boot, how = probe.boot_facts(self._parts.init), self.policy.restart(call.input)
        slot, manifest = await self._updates.candidate(boot)
        if call.dry_run:
            what = f"goes back to {manifest.version} (build {manifest.build}) in slot {slot}"
            return DryRun(possible=True, effects=(Effect(what=what), *_restarts(how)))

        async def work(progress: Progress) -> dict[str, str]:
            trial = await self._updates.offer(slot, "rollback", boot, how.reboot, progress)
            self._proof.offered(trial)
            await self._updates.restart(slot, boot, how, progress)
            return {"slot": slot, "build": manifest.build, "version": manifest.version}

        return self._start("deploy.rollback", "host", work, call.user)

    async def _preview(
        self, image: str, request: wire.UpdateRequest, how: Restart, boot: BootFacts
    ) -> DryRun:
        """What an update would do; an image on the web is only looked at when it comes."""
        effects = list(_restarts(how))
        try:
            self._devices.first(boot)
            if is_url(image):
                effects.insert(0, Effect(what=f"fetches {image}, and checks it"))
            else:
                found = await self._updates.check(self._sources.local(image), request, boot)
                what = f"writes {found.version} (build {found.build}) into the slot that does not run"
                effects.insert(0, Effect(what=what))
        except Problem as problem:
            reasons = problem.reasons or (Reason(message=problem.detail, code=problem.code),)
            return DryRun(possible=False, blockers=reasons)
        return DryRun(possible=True, effects=tuple(effects))


def _restarts(how: Restart) -> tuple[Effect, ...]:
    vms = {
        wire.Guests.POLICY: "saves or shuts down the VMs, as each one says,",
        wire.Guests.SAVE: "saves the VMs",
        wire.Guests.SHUTDOWN: "shuts the VMs down",
    }[how.vms]
    words = {
        wire.Reboot.KEXEC: f"{vms} and starts it without the firmware; goes back unless it is good",
        wire.Reboot.FIRMWARE: f"{vms} and reboots into it; goes back unless it is good",
        wire.Reboot.NONE: "starts it at the next reboot; goes back unless it is good",
    }
    return (Effect(what=words[how.reboot]),)
