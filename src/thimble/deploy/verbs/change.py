"""`deploy.change`: the policy, how this host is updated where a request does not say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.deploy import Deploy, PolicyChange, UpdatePolicy
from thimble.core.decision import Decision, blocked, nothing
from thimble.deploy import policy
from thimble.deploy.context import DeployContext
from thimble.dispatch import run


async def change(
    deploy: DeployContext, call: Call[PolicyChange], view: Callable[[], Awaitable[Deploy]]
) -> Deploy | DryRun:
    """Answers what `view` shows then."""

    async def act(decision: Decision[UpdatePolicy]) -> Deploy:
        if decision.plan is not None:
            await deploy.policy.commit(decision.plan)
        return await view()

    return await run.now(call, lambda: decide(deploy.policy.value, call.input), act, turn=deploy.policy.turn)


def decide(old: UpdatePolicy, wanted: PolicyChange) -> Decision[UpdatePolicy]:
    new = policy.changed(old, wanted)
    if reasons := policy.url_reasons(new.url):
        return blocked(*reasons, refusal="this cannot be how the host is updated")
    if new == old:
        return nothing("this is how the host is updated already")
    return Decision(plan=new, effects=tuple(policy.words(old, new)))
