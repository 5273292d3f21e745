"""`deploy.update`: the image into the slot that does not run, which the loader then tries (a trial boot).

    source ▸ check ▸ write ▸ mirror ▸ offer ▸ guests ▸ restart
    └── nothing changed ──┘       └ the commit point: from here on the loader tries it

Whatever ends this before `offer` leaves the running slot as the only choice; after it, the new one gets its
tries, and the running one comes back (rollback) unless the trial boot confirms itself (commit-confirm).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import msgspec

from thimble import __version__
from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.deploy import UpdateRequest
from thimble.contract.verbs import Started
from thimble.core.decision import Decision
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.core.units import MIB, show_size
from thimble.deploy import image, restart, slots, sysfs, this_boot
from thimble.deploy.boot_files import Esp, Op
from thimble.deploy.context import DeployContext, refused
from thimble.deploy.devices import Device
from thimble.deploy.esp import SlotImage
from thimble.deploy.image import BootImage
from thimble.deploy.image_source import is_url
from thimble.deploy.policy import Restart
from thimble.dispatch import run
from thimble.host.pid1 import BootFacts
from thimble.medium import loader
from thimble.state.tasks import Progress
from thimble.sys import log

VERB = "deploy.update"


class Checked(NamedTuple):
    """An image that is fit to run next, and the trusted key it is signed with."""

    image: BootImage
    signer: str


class UpdatePlan(msgspec.Struct, frozen=True, kw_only=True):
    """`image`: its name; `checked`: what is known of it, None while it is still on the web."""

    image: str
    request: UpdateRequest
    boot: BootFacts
    restart: Restart
    checked: Checked | None = None


async def update(deploy: DeployContext, call: Call[UpdateRequest]) -> Started | DryRun:
    """A task; its result names the slot, the build and the version."""
    turn = deploy.turn(VERB)

    async def decided() -> Decision[UpdatePlan]:
        return turn.checked(await decide(deploy, call.input))

    async def acted(plan: UpdatePlan, progress: Progress) -> dict[str, str]:
        return await act(deploy, plan, progress)

    return await run.task(deploy.parts.tasks, VERB, "host", call, decided, acted, turn=turn, cancellable=True)


async def decide(deploy: DeployContext, request: UpdateRequest) -> Decision[UpdatePlan]:
    """What it would do. An image on the web is only looked at when it comes.

    Raises `Problem` UNSUPPORTED when another operating system starts this host.
    """
    deploy.not_hosted()
    boot, how = deploy.boot, deploy.policy.restart(request)
    try:
        deploy.devices.first(boot)
        name = deploy.policy.image(request)
        plan = UpdatePlan(image=name, request=request, boot=boot, restart=how)
        if is_url(name):
            return Decision(plan=plan, effects=(f"fetches {name}, and checks it", restart.words(how)))
        checked = await check(deploy, await deploy.images.local(name), request, boot)
    except Problem as problem:
        return refused(problem)
    new = checked.image
    what = f"writes {new.version} (build {new.build}) into the slot that does not run"
    return Decision(plan=msgspec.structs.replace(plan, checked=checked), effects=(what, restart.words(how)))


async def act(deploy: DeployContext, plan: UpdatePlan, progress: Progress) -> dict[str, str]:
    """Write the slot, offer it to the loader, restart. Raises `Problem`."""
    boot = plan.boot
    async with deploy.image(plan.image, boot, progress) as path:
        async with progress.step("check"):
            new, signer = plan.checked or await check(deploy, path, plan.request, boot)
            log.say(f"update: {new.version} (build {new.build}) is signed with the key {signer}")
        progress.committed()
        slot = await write(deploy, new, boot, progress)
    trial = await restart.offer(deploy, slot, "update", boot, plan.restart.reboot, progress)
    await deploy.images.drop_upload()
    await deploy.trial.offered(trial)
    await restart.restart(deploy, slot, boot, plan.restart, progress)
    return {"slot": slot, "build": new.build, "version": new.version}


async def check(deploy: DeployContext, path: Path, request: UpdateRequest, boot: BootFacts) -> Checked:
    """The image, fit to be what runs next. Raises `Problem` saying all that is wrong with it."""
    device = deploy.devices.first(boot)
    found = await asyncio.to_thread(image.inspect, path, sha256=request.sha256)
    signer = await deploy.keys.signer(path, signed=found.uki.signed)
    reasons = []
    if found.build == boot.build:
        message = f"{found.version} (build {found.build}) is running already: there is nothing to do"
        reasons.append(Reason(message=message, code=Code.CONFLICT, path="$.image"))
    elif image.older(found.version, __version__) and not request.allow_older:
        message = f"{found.version} is older than {__version__}, which runs; ask for allow_older to have it"
        reasons.append(Reason(message=message, code=Code.CONFLICT, path="$.image"))
    reasons += await asyncio.to_thread(_room, deploy, device, found)
    refuse(reasons, "this host cannot be updated to that image")
    return Checked(found, signer)


def _room(deploy: DeployContext, device: Device, found: BootImage) -> list[Reason]:
    """Does it fit beside the slot that runs?"""
    there = deploy.devices.read(device)
    size = sysfs.size_of(device.esp)
    running = there.files.get(loader.slot_path(this_boot.facts(deploy.parts.init).slot), 0)
    room = size - running - 8 * MIB
    if not size or found.file_bytes <= room:
        return []
    message = f"the image has {show_size(found.file_bytes)}, and a slot of this medium {show_size(room)}"
    return [Reason(message=message, code=Code.NO_SPACE, path="$.image")]


async def write(deploy: DeployContext, new: BootImage, boot: BootFacts, progress: Progress) -> str:
    """Put the image into the slot that does not run, on every device; that slot. Raises `Problem`."""
    device, *mirrors = deploy.devices.all(boot)
    slot = loader.other(boot.slot)
    source = {loader.slot_path(slot): SlotImage(path=new.path, sha256=new.sha256)}

    def wanted(there: Esp) -> tuple[Op, ...]:
        gone = slots.clear(there, slot)
        stray = tuple(op for op in slots.leftovers(there) if op not in gone)
        return (*gone, *stray, *slots.fill(slot, new.manifest, new.menu(slot)))

    async with progress.step("write"):
        await restart.change(deploy, device, wanted, progress, images=source)
    async with progress.step("mirror"):
        for other in mirrors:
            try:
                await restart.change(deploy, other, wanted, progress, images=source)
            except Problem as problem:  # one that is lost does not hold up the update
                log.say(f"update: the mirror {other.disk} is not written: {problem.detail}")
    return slot
