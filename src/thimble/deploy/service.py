"""The noun `deploy`: which file answers which verb, and what the app needs of this package.

One of install, update, rollback and upload at a time. A dry run answers what each would do, and every
blocker.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from thimble import __version__
from thimble.contract import deploy as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Task
from thimble.contract.document import InstallEntry
from thimble.contract.verbs import Started
from thimble.deploy import slots
from thimble.deploy.context import DeployContext
from thimble.deploy.policy import Policy
from thimble.deploy.trust import KeyService
from thimble.deploy.verbs import change, install, rollback, update, upload
from thimble.host.pid1 import BootFacts


class DeployService:
    def __init__(self, deploy: DeployContext) -> None:
        self._deploy = deploy

    # ── for the app ──────────────────────────────────────────────────────────────────────────────

    @property
    def keys(self) -> KeyService:
        """The noun `key`."""
        return self._deploy.keys

    @property
    def policy(self) -> Policy:
        """How this host is updated where a request does not say."""
        return self._deploy.policy

    async def begin(self) -> None:
        """After ready, before any VM starts: prove a trial boot, settle what became of the last one.

        A trial boot that is not good ends here, in a reboot: then this does not return.
        """
        await self._deploy.begin()

    def warnings(self) -> tuple[str, ...]:
        """For `host.get`; none where another operating system starts this host."""
        if self._deploy.parts.hosted:
            return ()
        reported = " ".join(self._deploy.parts.init.warnings)
        missing = self._deploy.devices.mirror() == "degraded" and "mirror" not in reported
        lost = ("a boot disk is missing: put another in its place with `thimble host install --mirror DISK`",)
        return (*self._deploy.trial.warnings(), *(lost if missing else ()))

    def opened(self, name: str) -> AbstractAsyncContextManager[Path]:
        """The image that `name` stands for, as in a request; empty for the running one. Raises `Problem`."""
        return self._deploy.images.opened(name, self._deploy.boot)

    async def install_from_document(self, entry: InstallEntry) -> Task | None:
        """What the host document's [install] asks for; returns when it has ended."""
        return await install.from_document(self._deploy, entry)

    # ── verbs ────────────────────────────────────────────────────────────────────────────────────

    async def get(self, _call: Call[None]) -> wire.Deploy:
        return await self.view()

    async def change(self, call: Call[wire.PolicyChange]) -> wire.Deploy | DryRun:
        return await change.change(self._deploy, call, self.view)

    async def upload(self, call: Call[None]) -> wire.Uploaded | DryRun:
        return await upload.upload(self._deploy, call)

    async def install(self, call: Call[wire.InstallRequest]) -> Started | DryRun:
        return await install.install(self._deploy, call)

    async def update(self, call: Call[wire.UpdateRequest]) -> Started | DryRun:
        return await update.update(self._deploy, call)

    async def rollback(self, call: Call[wire.RollbackRequest]) -> Started | DryRun:
        return await rollback.rollback(self._deploy, call)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    async def view(self) -> wire.Deploy:
        """What this host was started from, and what it can start from."""
        return await asyncio.to_thread(self._view, self._deploy.boot)

    def _view(self, boot: BootFacts) -> wire.Deploy:
        devices = self._deploy.devices
        found = devices.all(boot)
        shown = slots.states(devices.read(found[0]), boot.slot) if found else ()
        return wire.Deploy(
            firmware="" if self._deploy.parts.hosted else boot.firmware,
            secure_boot=boot.secure_boot,
            medium=boot.medium.kind if boot.medium and (found or boot.medium.kind == "cd") else "",
            installed=bool(devices.array()),
            build=boot.build,
            version=__version__,
            trial=any(slot.running and slot.state is wire.SlotState.TRIAL for slot in shown),
            slots=shown,
            devices=devices.view(boot),
            mirror=devices.mirror(),
            last=self._deploy.trial.last,
            policy=self._deploy.policy.value,
        )
