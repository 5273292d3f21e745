"""`deploy.install`: on a blank disk, over an installation, or a disk joined as a mirror.

Asked for by a person, or by the host document ([install]), which installs unattended.

    source ▸ check ▸ the steps of `installer` ▸ guests ▸ restart
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from thimble import __version__
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Task
from thimble.contract.deploy import InstallRequest
from thimble.contract.document import InstallEntry
from thimble.contract.verbs import Started
from thimble.core.decision import Decision, blocked
from thimble.core.problem import Code, Reason, refuse
from thimble.deploy import image, plan, probe, sysfs, this_boot
from thimble.deploy.context import DeployContext
from thimble.deploy.installer import Installer
from thimble.deploy.plan import InstallFacts, InstallPlan
from thimble.deploy.restart import go_down
from thimble.deploy.state_array import Carried
from thimble.dispatch import run
from thimble.state.tasks import Progress
from thimble.sys import log

VERB = "deploy.install"
#: Seconds guests get before the reboot into what was installed.
GUEST_S = 120.0


async def install(deploy: DeployContext, call: Call[InstallRequest]) -> Started | DryRun:
    """A task; its result names the disks, the build and the version."""
    deploy.not_hosted()
    turn = deploy.turn(VERB)

    async def decided() -> Decision[InstallPlan]:
        decision = await decide(deploy, call.input)
        if decision.note:  # for a request it is a blocker: `done` would read as installed
            decision = blocked(Reason(message=decision.note, code=Code.CONFLICT))
        return turn.checked(decision)

    async def acted(wanted: InstallPlan, progress: Progress) -> dict[str, str]:
        return await act(deploy, call.input, wanted, progress)

    first = await decided()
    again = _after(first, decided)
    return await run.task(
        deploy.parts.tasks, VERB, _subject(first), call, again, acted, turn=turn, cancellable=True
    )


async def from_document(deploy: DeployContext, entry: InstallEntry) -> Task | None:
    """Install unattended, unless we run from an installation already; the task when it has ended, or None.

    Announces on the console what it does, or why not.
    """
    if deploy.parts.hosted or deploy.devices.array():
        return None
    wanted = InstallRequest(disk=entry.disk, mirror=entry.mirror, reboot=entry.reboot)
    turn = deploy.turn(VERB)

    async def decided() -> Decision[InstallPlan]:
        return turn.checked(await decide(deploy, wanted, entry.erase))

    async def acted(found: InstallPlan, progress: Progress) -> dict[str, str]:
        return await act(deploy, wanted, found, progress)

    decision = await decided()
    if decision.note:
        log.say(f"install: {decision.note}")
        return None
    if decision.plan is None:
        deploy.announce("not installed: " + "; ".join(reason.message for reason in decision.blockers))
        return None
    deploy.announce("installing, as the host document says: " + "; ".join(decision.effects))
    tasks, call, again = deploy.parts.tasks, Call(input=wanted), _after(decision, decided)
    started = await run.task(tasks, VERB, _subject(decision), call, again, acted, turn=turn)
    assert isinstance(started, Started)
    ended = await tasks.wait(started.task.id)
    if ended.problem is not None:
        deploy.announce(f"not installed: {ended.problem.detail}")
    return ended


Decide = Callable[[], Awaitable[Decision[InstallPlan]]]


def _after(first: Decision[InstallPlan], decided: Decide) -> Decide:
    """`first`, and whatever `decided` says from then on: all disks were just looked at for the subject."""
    made = [first]

    async def again() -> Decision[InstallPlan]:
        return made.pop() if made else await decided()

    return again


def _subject(decision: Decision[InstallPlan]) -> str:
    return decision.plan.targets[0].disk.device if decision.plan else ""


async def decide(
    deploy: DeployContext, request: InstallRequest, erasable: tuple[str, ...] = ()
) -> Decision[InstallPlan]:
    """`erasable`: disks whose content may be lost, as the host document names them."""
    facts = await asyncio.to_thread(_facts, deploy, request, erasable)
    return plan.install(request, facts)


async def act(
    deploy: DeployContext, request: InstallRequest, wanted: InstallPlan, progress: Progress
) -> dict[str, str]:
    """Raises `Problem`; until the last step nothing starts from the new disk."""
    boot = deploy.boot
    async with deploy.image(request.image, boot, progress) as path:
        async with progress.step("check"):
            new = await asyncio.to_thread(image.inspect, path, sha256=request.sha256)
            if new.build != boot.build:  # what runs is trusted already
                await deploy.keys.signer(path, signed=new.uki.signed)
            if reasons := plan.image_fits(new.file_bytes):
                refuse(reasons, reasons[0].message)
        parts = deploy.parts
        carried = Carried(state=parts.state, run=parts.run, taken=tuple(parts.storage.names()))
        installer = Installer(carried, deploy.devices, deploy.mounts)
        if wanted.join:
            await installer.join(wanted, boot, new, progress)
        else:
            await installer.install(wanted, new, progress)
    disks = ", ".join(target.disk.device for target in wanted.targets)
    deploy.announce(f"installed {new.version} on {disks}")
    if request.reboot:
        await go_down(deploy, "reboot", GUEST_S, None, progress)
    return {"disk": disks, "build": new.build, "version": new.version}


def _facts(deploy: DeployContext, request: InstallRequest, erasable: tuple[str, ...]) -> InstallFacts:
    """In a thread: it reads every disk."""
    boot, init = deploy.boot, deploy.parts.init
    members = tuple(sysfs.disk_of(part) for part in sysfs.members(init.state[1]))
    booted = this_boot.disk(boot)
    found = probe.all_disks(deploy.mounts)
    return InstallFacts(
        disks=found,
        booted=booted,
        members=members,
        bios=boot.firmware == "bios",
        mirrored=bool(deploy.devices.array()) and bool(deploy.devices.all(boot)),
        build=boot.build if not request.image else "",
        version=__version__,
        lost_vms=deploy.parts.ram_vms(),
        named=probe.named((request.disk, request.mirror), found, (booted, *members)),
        erasable=frozenset(probe.named(erasable, found, ()).values()) - {""},
    )
