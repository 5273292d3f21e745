"""`deploy.rollback`: the other slot, which was good before, as a trial boot.

offer ▸ guests ▸ restart      nothing is written but which slot the loader tries
"""

from __future__ import annotations

import asyncio

import msgspec

from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.deploy import RollbackRequest, SlotState
from thimble.contract.verbs import Started
from thimble.core.decision import Decision
from thimble.core.problem import Code, Problem
from thimble.deploy import restart, slots
from thimble.deploy.boot_files import Manifest
from thimble.deploy.context import DeployContext, refused
from thimble.deploy.policy import Restart
from thimble.dispatch import run
from thimble.host.pid1 import BootFacts
from thimble.medium import loader
from thimble.state.tasks import Progress

VERB = "deploy.rollback"


class RollbackPlan(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest`: what is in the slot."""

    slot: str
    manifest: Manifest
    boot: BootFacts
    restart: Restart


async def rollback(deploy: DeployContext, call: Call[RollbackRequest]) -> Started | DryRun:
    """A task; its result names the slot, the build and the version."""
    turn = deploy.turn(VERB)

    async def decided() -> Decision[RollbackPlan]:
        return turn.checked(await decide(deploy, call.input))

    async def acted(plan: RollbackPlan, progress: Progress) -> dict[str, str]:
        return await act(deploy, plan, progress)

    return await run.task(deploy.parts.tasks, VERB, "host", call, decided, acted, turn=turn)


async def decide(deploy: DeployContext, request: RollbackRequest) -> Decision[RollbackPlan]:
    """Raises `Problem` UNSUPPORTED when another operating system starts this host."""
    deploy.not_hosted()
    boot, how = deploy.boot, deploy.policy.restart(request)
    try:
        slot, manifest = await candidate(deploy, boot)
    except Problem as problem:
        return refused(problem)
    what = f"goes back to {manifest.version} (build {manifest.build}) in slot {slot}"
    plan = RollbackPlan(slot=slot, manifest=manifest, boot=boot, restart=how)
    return Decision(plan=plan, effects=(what, restart.words(how)))


async def act(deploy: DeployContext, plan: RollbackPlan, progress: Progress) -> dict[str, str]:
    """Offer the slot to the loader, restart. Raises `Problem`."""
    trial = await restart.offer(deploy, plan.slot, "rollback", plan.boot, plan.restart.reboot, progress)
    await deploy.trial.offered(trial)
    await restart.restart(deploy, plan.slot, plan.boot, plan.restart, progress)
    return {"slot": plan.slot, "build": plan.manifest.build, "version": plan.manifest.version}


async def candidate(deploy: DeployContext, boot: BootFacts) -> tuple[str, Manifest]:
    """The slot to roll back to. Raises `Problem` CONFLICT."""
    device = deploy.devices.first(boot)
    there = await asyncio.to_thread(deploy.devices.read, device)
    slot = loader.other(boot.slot)
    state = next(found.state for found in slots.states(there, boot.slot) if found.slot == slot)
    if state is not SlotState.GOOD:
        raise Problem(
            Code.CONFLICT,
            f"there is nothing to go back to: slot {slot} is {state}",
            hint="`thimble host deploy` shows both slots.",
        )
    return slot, there.manifests.get(slot, Manifest(build="", version=""))
