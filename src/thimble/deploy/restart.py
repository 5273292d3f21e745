"""Into the other slot, for update and rollback alike: offer it to the loader, bring VMs down, restart.

offer ▸ guests ▸ restart
  └ the commit point: from here on the loader tries the slot (a trial boot)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from thimble.contract.deploy import Guests, Reboot
from thimble.contract.vm import HostShutdown
from thimble.core.problem import Problem
from thimble.deploy import kernel, slots, this_boot
from thimble.deploy.boot_files import Esp, Manifest, Op, Trial
from thimble.deploy.context import DeployContext
from thimble.deploy.devices import Device
from thimble.deploy.esp import SlotImage
from thimble.deploy.policy import Restart
from thimble.host.pid1 import BootFacts
from thimble.medium import loader
from thimble.state.tasks import Progress
from thimble.sys import clock, log

#: None: each VM as its own setting says.
HOW: dict[Guests, HostShutdown | None] = {
    Guests.POLICY: None,
    Guests.SAVE: HostShutdown.SAVE,
    Guests.SHUTDOWN: HostShutdown.SHUTDOWN,
}


def words(how: Restart) -> str:
    """What becomes of the VMs and how the slot is started, for a dry run."""
    vms = {
        Guests.POLICY: "saves or shuts down the VMs, as each one says,",
        Guests.SAVE: "saves the VMs",
        Guests.SHUTDOWN: "shuts the VMs down",
    }[how.vms]
    return {
        Reboot.KEXEC: f"{vms} and starts it without the firmware; goes back unless it is good",
        Reboot.FIRMWARE: f"{vms} and reboots into it; goes back unless it is good",
        Reboot.NONE: "starts it at the next reboot; goes back unless it is good",
    }[how.reboot]


async def offer(
    deploy: DeployContext, slot: str, kind: str, boot: BootFacts, how: Reboot, progress: Progress
) -> Trial:
    """Let the loader try `slot` from the next start on: the commit point. Raises `Problem`."""
    device, *mirrors = deploy.devices.all(boot)
    there = await asyncio.to_thread(deploy.devices.read, device)
    nothing = Manifest(build="", version="")
    trial = Trial(
        kind=kind,
        slot=slot,
        number=slots.next_number(there),
        manifest=there.manifests.get(slot, nothing),
        before=there.manifests.get(boot.slot, nothing),
        begun=clock.now(),
        boot=this_boot.boot_id(),
        expect=await deploy.health.expectations(),
    )
    # what is started without the loader has used up one of its tries already
    left = loader.TRIES - 1 if how is Reboot.KEXEC else loader.TRIES

    def wanted(seen: Esp) -> tuple[Op, ...]:
        return slots.offer(seen, trial, boot.firmware, left=left)

    async with progress.step("offer"):
        await change(deploy, device, wanted, progress)
    for other in mirrors:
        try:
            await change(deploy, other, wanted, progress)
        except Problem as problem:
            log.say(f"{kind}: the mirror {other.disk} does not follow: {problem.detail}")
    return trial


async def restart(
    deploy: DeployContext, slot: str, boot: BootFacts, how: Restart, progress: Progress
) -> None:
    """Bring the VMs down, then start the slot. Raises `Problem`."""
    if how.reboot is Reboot.NONE:
        return
    verb = "reboot"
    if how.reboot is Reboot.KEXEC:
        try:
            await asyncio.to_thread(kernel.load, deploy.mounts, deploy.devices.first(boot).esp, slot)
            verb = "kexec"
        except Problem as problem:
            log.say(f"restarting by the firmware, because kexec is not possible: {problem.detail}")
    await go_down(deploy, verb, how.guest_timeout_s, HOW[how.vms], progress)


async def go_down(
    deploy: DeployContext, verb: str, timeout: float, how: HostShutdown | None, progress: Progress
) -> None:
    """VMs first, in `timeout` seconds, then the host; `verb`: what PID 1 is to do. Raises `Problem`."""
    async with AsyncExitStack() as stack:
        async with progress.step("guests"):
            await stack.enter_async_context(deploy.parts.guests_stopped(timeout, how))
        async with progress.step("restart"):
            deploy.parts.init.tell(verb)


async def change(
    deploy: DeployContext,
    device: Device,
    wanted: Callable[[Esp], tuple[Op, ...]],
    progress: Progress,
    images: Mapping[str, SlotImage] | None = None,
) -> None:
    """Change one boot partition, off the loop; its progress and fault points are the task's."""
    loop = asyncio.get_running_loop()

    def part(fraction: float) -> None:
        loop.call_soon_threadsafe(progress.at, 0.1 + 0.8 * fraction)

    def passed(path: str) -> None:
        progress.reached(f"{device.disk}:{path}" if not device.booted else path)

    await asyncio.to_thread(
        deploy.devices.change, device, wanted, images=images or {}, progress=part, passed=passed
    )
