"""The verbs of the management network: what was asked for is one record, and PID 1 makes it so.

    <state>/management/management.json      read by PID 1 at boot, and when it is told `network`

    change ──► record ──► in force                              confirm_within 0
    change ──► PID 1 tries it ──► confirm ──► record            else: the record stays the old one until then
                    └── undo, or nobody confirmed, or a reboot ──► the record's settings again

Without the record the document found at boot decides, and above all the kernel command line. Hosted, the
network is somebody else's and nothing is kept. What is on trial is PID 1's, so that it ends without us too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.management import Management, ManagementChange, ManagementSettings, PendingNet
from thimble.core.decision import Decision, blocked, nothing, unless
from thimble.core.problem import Code, Problem, Reason
from thimble.dispatch import run
from thimble.host import hardware, rules
from thimble.host.pid1 import Init, NetworkTrial
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.state.store import Collection, check
from thimble.sys import clock, hostnet

ID = "management"
NOUN = "management network"
#: Seconds PID 1 may take to obey, and the pause between two looks at its facts.
OBEYED_S = 10.0
PAUSE_S = 0.02


class ManagementService:
    """`management.*`."""

    def __init__(self, state: Path, init: Init, events: Events, *, durable: bool) -> None:
        self._init = init
        self._events = events
        self._watching: asyncio.Task[None] | None = None
        self._background = Background()
        #: Held from the decision until PID 1 has obeyed.
        self._turn = asyncio.Lock()
        self.records: Collection[ManagementSettings] = Collection(
            ManagementSettings, noun=NOUN, durable=durable
        )
        self.records.add_root("", state / "management")

    @property
    def settings(self) -> ManagementSettings:
        """What was asked for and confirmed, or what holds when nothing was."""
        found = self.records.find(ID)
        return found.value if found else ManagementSettings()

    @property
    def decided(self) -> bool:
        """Does the kernel command line decide, whatever is asked for?"""
        return "ip" in self._init.words

    async def get(self, _call: Call[None]) -> Management:
        return self.view()

    def view(self) -> Management:
        """The settings as they are, with what is on trial."""
        trial = self._init.network_trial
        tried = msgspec.convert(trial.settings, ManagementSettings) if trial else self.settings
        pending = self._pending(trial) if trial else None
        return Management(rev=self._rev, managed=self._init.present, settings=tried, pending=pending)

    async def change(self, call: Call[ManagementChange]) -> Management | DryRun:
        seconds = call.input.confirm_within

        def decide() -> Decision[ManagementSettings]:
            check(call.if_match, self._rev, NOUN)
            old, new = self.settings, rules.changed(self.settings, call.input)
            reasons = self._against(new, seconds)
            hint = "Set it in that system." if not self._init.present else ""
            words = rules.differences(old, new)
            if words and seconds:
                words.append(f"undoes that after {seconds} s unless it is confirmed")
            decision = Decision(plan=new, effects=tuple(words), warnings=self._without_effect())
            if not reasons and new == old and self._rev:
                return nothing("the settings are so already")
            refusal = f"the management network cannot be changed: {_first(reasons)}"
            return unless(reasons, decision, refusal=refusal, hint=hint)

        async def act(decision: Decision[ManagementSettings]) -> Management:
            if (new := decision.plan) is not None:
                if new != self.settings and seconds:
                    await self._try(new, seconds, call.user)
                else:
                    await self.records.commit(ID, new)
                    self._init.tell("network")
            return self.view()

        return await run.now(call, decide, act, turn=self._turn)

    async def confirm(self, call: Call[None]) -> Management | DryRun:
        """Keep what is on trial. Asked over a connection that could only be made with the new settings."""
        console = _is_own(call.peer)

        def decide() -> Decision[NetworkTrial]:
            check(call.if_match, self._rev, NOUN)
            trial = self._init.network_trial
            reasons = [_nothing()]
            if trial is not None and clock.since_boot() < trial.deadline:
                problem = self._pending(trial).problem
                reasons = rules.confirm_reasons(
                    in_force=trial.in_force, since=call.since, console=console, problem=problem
                )
            kept = Decision(plan=trial, effects=("keeps the new settings of the management network",))
            return unless(reasons, kept, refusal=f"nothing is confirmed: {_first(reasons)}", hint=_HINT)

        async def act(decision: Decision[NetworkTrial]) -> Management:
            trial = decision.plan
            assert trial is not None
            await self.records.commit(ID, msgspec.convert(trial.settings, ManagementSettings))
            self._unwatch()
            await self._end(trial)
            by = "the host itself" if console else call.peer
            self._events.publish("management.confirmed", ID, user=call.user, over=by)
            return self.view()

        return await run.now(call, decide, act, turn=self._turn)

    async def undo(self, call: Call[None]) -> Management | DryRun:
        """Take back what is on trial."""

        def decide() -> Decision[NetworkTrial]:
            check(call.if_match, self._rev, NOUN)
            trial = self._init.network_trial
            if trial is None:
                return blocked(_nothing(), refusal=f"nothing is undone: {_nothing().message}", hint=_HINT)
            tried = msgspec.convert(trial.settings, ManagementSettings)
            return Decision(plan=trial, effects=tuple(rules.differences(tried, self.settings)))

        async def act(decision: Decision[NetworkTrial]) -> Management:
            assert decision.plan is not None
            self._unwatch()
            await self._end(decision.plan)
            self._events.publish("management.undone", ID, user=call.user, why="asked for")
            return self.view()

        return await run.now(call, decide, act, turn=self._turn)

    def watch(self) -> None:
        """Publish an event when what is on trial ends by itself; also after a restart of the agent."""
        self._unwatch()
        if (trial := self._init.network_trial) is not None:
            self._watching = self._background.keep("trial of the management network", self._watch(trial))

    @property
    def _rev(self) -> int:
        found = self.records.find(ID)
        return found.rev if found else 0

    def _against(self, new: ManagementSettings, seconds: int) -> list[Reason]:
        found = rules.management_reasons(new) + rules.time_reasons(new.ntp, "$.ntp")
        if not self._init.present:
            return [*found, _hosted()]
        if self._init.network_trial is not None:
            found.append(_is_pending())
        if seconds:
            found += rules.trial_reasons(seconds, decided=self.decided, nic=new.nic, nics=hostnet.macs())
        return found

    def _without_effect(self) -> tuple[str, ...]:
        if not self.decided:
            return ()
        return ("`ip=` on the kernel command line decides: the settings are kept, and in force without it",)

    def _pending(self, trial: NetworkTrial) -> PendingNet:
        left = max(0.0, trial.deadline - clock.since_boot())
        return PendingNet(
            until=round(clock.now() + left, 1),
            left_s=round(left, 1),
            previous=self.settings,
            in_force=trial.in_force > 0,
            problem=next((line for line in self._init.warnings if line.startswith("no DHCP server")), ""),
        )

    async def _try(self, new: ManagementSettings, seconds: int, user: str) -> None:
        id = clock.entropy(6).hex()
        self._init.tell("network", trial=msgspec.to_builtins(new), id=id, seconds=seconds)
        await self._seen(lambda trial: trial is not None and trial.id == id)
        self._events.publish("management.pending", ID, user=user, seconds=str(seconds))
        self.watch()

    async def _end(self, trial: NetworkTrial) -> None:
        """The record decides from now on."""
        self._init.tell("network")
        await self._seen(lambda now: now is None or now.id != trial.id)

    async def _seen(self, is_so: Callable[[NetworkTrial | None], bool]) -> None:
        """PID 1's facts are so. Raises `Problem` UNAVAILABLE when it does not obey."""
        deadline = clock.since_boot() + OBEYED_S
        while not is_so(self._init.network_trial):
            if clock.since_boot() > deadline:
                raise Problem(Code.UNAVAILABLE, "PID 1 does not answer", hint="The console says more.")
            await asyncio.sleep(PAUSE_S)

    async def _watch(self, trial: NetworkTrial) -> None:
        await asyncio.sleep(max(0.0, trial.deadline - clock.since_boot()))
        await self._seen(lambda now: now is None or now.id != trial.id)
        self._events.publish("management.undone", ID, why="nobody confirmed it in time")

    def _unwatch(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None


_HINT = "`thimble host network` shows how things stand."


def _is_own(peer: str) -> bool:
    """Does the connection come from this very host? Then it proves nothing of the network."""
    return peer == "::1" or peer.startswith("127.") or peer in hardware.addresses()


def _hosted() -> Reason:
    return Reason(
        message="this agent runs inside another operating system, which looks after its own network",
        code=Code.UNSUPPORTED,
    )


def _nothing() -> Reason:
    message = "no settings of the management network wait for it; those not confirmed in time are undone"
    return Reason(message=message, code=Code.CONFLICT)


def _is_pending() -> Reason:
    return Reason(
        message="an earlier change is not confirmed yet: confirm it or undo it first", code=Code.CONFLICT
    )


def _first(reasons: list[Reason]) -> str:
    return reasons[0].message if reasons else ""
