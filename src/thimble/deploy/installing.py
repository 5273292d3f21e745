"""The verb `deploy.install`, asked for by a person or by the host document."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from thimble import __version__
from thimble.contract import deploy as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect, Task
from thimble.contract.document import InstallEntry
from thimble.contract.verbs import Started
from thimble.core.decision import Accept, Deny, Ignore
from thimble.core.problem import Code, Problem
from thimble.deploy import image as images
from thimble.deploy import plan, probe
from thimble.deploy.context import Desk
from thimble.deploy.install import Host, Installer
from thimble.deploy.plan import InstallPlan
from thimble.state.tasks import Progress
from thimble.sys import log

#: Seconds guests get before the reboot into what was installed.
GUEST_S = 120.0


class InstallVerbs(Desk):
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

    async def install_from_document(self, entry: InstallEntry) -> Task | None:
        """Install unattended, unless we run from an installation already; the task, or None.

        Says on the console what it does, or why not.
        """
        if self._parts.hosted or self._devices.array():
            return None
        wanted = wire.InstallRequest(disk=entry.disk, mirror=entry.mirror, reboot=entry.reboot)
        decision, _ = await self._decide(wanted, entry.erase)
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

    async def _install(
        self, request: wire.InstallRequest, wanted: InstallPlan, progress: Progress
    ) -> dict[str, str]:
        boot = probe.boot_facts(self._parts.init)
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
                await parts.stop_guests(GUEST_S, wire.Guests.POLICY)
            async with progress.step("restart"):
                parts.init.tell("reboot")
        return {"disk": disks, "build": image.build, "version": image.version}

    async def _decide(
        self, request: wire.InstallRequest, erasable: tuple[str, ...] = ()
    ) -> tuple[plan.Decision, plan.Facts]:
        facts = await asyncio.to_thread(self._facts, request, erasable)
        return plan.install(request, facts), facts

    def _facts(self, request: wire.InstallRequest, erasable: tuple[str, ...]) -> plan.Facts:
        boot = probe.boot_facts(self._parts.init)
        members = tuple(probe.disk_of(part) for part in probe.members(self._parts.init.state[1]))
        booted = probe.started_from(boot)
        found = probe.all_disks(self._run)
        return plan.Facts(
            disks=found,
            booted=booted,
            members=members,
            bios=boot.firmware == "bios",
            mirrored=bool(self._devices.array()) and bool(self._devices.all(boot)),
            build=boot.build if not request.image else "",
            version=__version__,
            lost_vms=self._parts.ram_vms(),
            named=probe.named((request.disk, request.mirror), found, (booted, *members)),
            erasable=frozenset(probe.named(erasable, found, ()).values()) - {""},
        )


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
