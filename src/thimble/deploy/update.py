"""Updating and rolling back: the image into the slot that does not run, which the loader then tries.

    source ▸ check ▸ write ▸ mirror ▸ offer ▸ guests ▸ restart
    └── nothing changed ──┘       └ the commit point: from here on the loader tries it

Whatever ends this before `offer` leaves the running slot as the only choice; after it, the new one gets its
tries, and the running one comes back unless `proof` confirms it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from thimble import __version__
from thimble.contract.deploy import Guests, Reboot, SlotState, UpdateRequest
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.core.units import MIB, show_size
from thimble.deploy import image as images
from thimble.deploy import probe, slots
from thimble.deploy.devices import Device, Devices
from thimble.deploy.esp import Source
from thimble.deploy.image import Image
from thimble.deploy.policy import Restart
from thimble.deploy.slots import Expect, Manifest, Trial
from thimble.deploy.trust import KeyService
from thimble.host.pid1 import BootFacts, Init
from thimble.medium import loader
from thimble.state.tasks import Progress
from thimble.sys import clock, log

StopGuests = Callable[[float, Guests], Awaitable[None]]


class Updates:
    """`expect` measures what works now; `stop_guests` brings the VMs down as asked."""

    def __init__(
        self,
        *,
        run: Path,
        init: Init,
        devices: Devices,
        keys: KeyService,
        expect: Callable[[], Awaitable[Expect]],
        stop_guests: StopGuests,
    ) -> None:
        self._run = run
        self._init = init
        self._devices = devices
        self._keys = keys
        self._expect = expect
        self._stop_guests = stop_guests

    async def check(self, path: Path, request: UpdateRequest, boot: BootFacts) -> Image:
        """The image, fit to be what runs next. Raises `Problem` saying all that is wrong with it."""
        device = self._devices.first(boot)
        found = await asyncio.to_thread(images.inspect, path, sha256=request.sha256)
        signer = await self._keys.signer(path, signed=found.uki.signed)
        log.say(f"update: {found.version} (build {found.build}) is signed with the key {signer}")
        reasons = []
        if found.build == boot.build:
            message = f"{found.version} (build {found.build}) is running already: there is nothing to do"
            reasons.append(Reason(message=message, code=Code.CONFLICT, path="$.image"))
        elif images.older(found.version, __version__) and not request.allow_older:
            message = (
                f"{found.version} is older than {__version__}, which runs; ask for allow_older to have it"
            )
            reasons.append(Reason(message=message, code=Code.CONFLICT, path="$.image"))
        reasons += await asyncio.to_thread(self._room, device, found)
        refuse(reasons, "this host cannot be updated to that image")
        return found

    def _room(self, device: Device, found: Image) -> list[Reason]:
        there = self._devices.read(device)
        size = probe.size_of(device.esp)
        slot = probe.boot_facts(self._init).slot
        mine = there.files.get(loader.slot_path(slot), 0)
        room = size - mine - 8 * MIB
        if not size or found.file_bytes <= room:
            return []
        message = f"the image has {show_size(found.file_bytes)}, and a slot of this medium {show_size(room)}"
        return [Reason(message=message, code=Code.NO_SPACE, path="$.image")]

    async def write(self, new: Image, boot: BootFacts, progress: Progress) -> str:
        """Put the image into the slot that does not run, on every device; that slot."""
        device, *mirrors = self._devices.all(boot)
        slot = loader.other(boot.slot)
        source = {loader.slot_path(slot): Source(path=new.path, sha256=new.sha256)}

        def decide(there: slots.Esp) -> tuple[slots.Op, ...]:
            gone = slots.clear(there, slot)
            stray = tuple(op for op in slots.leftovers(there) if op not in gone)
            return (*gone, *stray, *slots.fill(slot, new.manifest, new.menu(slot)))

        async with progress.step("write"):
            await self._change(device, decide, progress, images=source)
        async with progress.step("mirror"):
            for other in mirrors:
                try:
                    await self._change(other, decide, progress, images=source)
                except Problem as problem:  # one that is lost does not hold up the update
                    log.say(f"update: the mirror {other.disk} is not written: {problem.detail}")
        return slot

    async def offer(self, slot: str, kind: str, boot: BootFacts, how: Reboot, progress: Progress) -> Trial:
        """Let the loader try `slot` from the next start on: the commit point."""
        device, *mirrors = self._devices.all(boot)
        there = await asyncio.to_thread(self._devices.read, device)
        nothing = Manifest(build="", version="")
        trial = Trial(
            kind=kind,
            slot=slot,
            number=slots.next_number(there),
            manifest=there.manifests.get(slot, nothing),
            before=there.manifests.get(boot.slot, nothing),
            begun=clock.now(),
            boot=probe.boot_id(),
            expect=await self._expect(),
        )
        # what is started without the loader has used up one of its tries already
        left = loader.TRIES - 1 if how is Reboot.KEXEC else loader.TRIES

        def decide(seen: slots.Esp) -> tuple[slots.Op, ...]:
            return slots.offer(seen, trial, boot.firmware, left=left)

        async with progress.step("offer"):
            await self._change(device, decide, progress)
        for other in mirrors:
            try:
                await self._change(other, decide, progress)
            except Problem as problem:
                log.say(f"update: the mirror {other.disk} does not follow: {problem.detail}")
        return trial

    async def candidate(self, boot: BootFacts) -> tuple[str, Manifest]:
        """The slot to roll back to. Raises `Problem` CONFLICT."""
        device = self._devices.first(boot)
        there = await asyncio.to_thread(self._devices.read, device)
        slot = loader.other(boot.slot)
        state = next(found.state for found in slots.states(there, boot.slot) if found.slot == slot)
        if state is not SlotState.GOOD:
            raise Problem(
                Code.CONFLICT,
                f"there is nothing to go back to: slot {slot} is {state}",
                hint="`thimble host deploy` shows both slots.",
            )
        return slot, there.manifests.get(slot, Manifest(build="", version=""))

    async def restart(self, slot: str, boot: BootFacts, how: Restart, progress: Progress) -> None:
        """Bring the VMs down, then start the slot."""
        if how.reboot is Reboot.NONE:
            return
        verb = "reboot"
        if how.reboot is Reboot.KEXEC:
            try:
                await asyncio.to_thread(self._load, slot, boot)
                verb = "kexec"
            except Problem as problem:
                log.say(
                    f"update: restarting by the firmware, because kexec is not possible: {problem.detail}"
                )
        async with progress.step("guests"):
            await self._stop_guests(how.guest_timeout_s, how.vms)
        async with progress.step("restart"):
            self._init.tell(verb)

    def _load(self, slot: str, boot: BootFacts) -> None:
        from thimble.deploy import kernel

        device = self._devices.first(boot)
        kernel.load(device.esp, slot, self._run)

    async def _change(
        self,
        device: Device,
        decide: Callable[[slots.Esp], tuple[slots.Op, ...]],
        progress: Progress,
        images: dict[str, Source] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()

        def tell(fraction: float) -> None:
            loop.call_soon_threadsafe(progress.at, 0.1 + 0.8 * fraction)

        def passed(path: str) -> None:
            progress.reached(f"{device.disk}:{path}" if not device.booted else path)

        await asyncio.to_thread(
            self._devices.change, device, decide, images=images or {}, progress=tell, passed=passed
        )
