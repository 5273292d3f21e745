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
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect
from thimble.contract.management import Management, ManagementChange, ManagementSettings, PendingNet
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.host import hardware, rules
from thimble.host.pid1 import Init, NetworkTrial
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

    async def get(self, _call: Call[Any] | None = None) -> Management:
        trial = self._init.network_trial
        tried = msgspec.convert(trial.settings, ManagementSettings) if trial else self.settings
        pending = self._pending(trial) if trial else None
        return Management(rev=self._rev, managed=self._init.present, settings=tried, pending=pending)

    async def change(self, call: Call[ManagementChange]) -> Management | DryRun:
        old, wanted = self.settings, call.input
        check(call.if_match, self._rev, NOUN)
        new = changed(old, wanted)
        reasons = self._against(new, wanted.confirm_within)
        if call.dry_run:
            words = differences(old, new)
            if words and wanted.confirm_within:
                words.append(f"undoes that after {wanted.confirm_within} s unless it is confirmed")
            return _dry(words, reasons, self._without_effect())
        hint = "Set it in that system." if not self._init.present else ""
        refuse(reasons, f"the management network cannot be so: {_first(reasons)}", hint=hint)
        if new != old and wanted.confirm_within:
            await self._try(new, wanted.confirm_within, call.user)
        elif new != old or not self._rev:
            self.records.put(ID, new, expect=call.if_match)
            self._init.tell("network")
        return await self.get()

    async def confirm(self, call: Call[None]) -> Management | DryRun:
        """Keep what is on trial. Asked over a connection that could only be made with the new settings."""
        check(call.if_match, self._rev, NOUN)
        trial = self._init.network_trial
        reasons = [_nothing()]
        console = _is_own(call.peer)
        if trial is not None and clock.since_boot() < trial.deadline:
            problem = self._pending(trial).problem
            reasons = rules.confirm_reasons(
                in_force=trial.in_force, since=call.since, console=console, problem=problem
            )
        if call.dry_run:
            return _dry(["keeps the new settings of the management network"], reasons)
        refuse(reasons, f"nothing is confirmed: {_first(reasons)}", hint=_HINT)
        assert trial is not None
        self.records.put(ID, msgspec.convert(trial.settings, ManagementSettings))
        self._unwatch()
        await self._end(trial)
        by = "the host itself" if console else call.peer
        self._events.publish("management.confirmed", ID, user=call.user, over=by)
        return await self.get()

    async def undo(self, call: Call[None]) -> Management | DryRun:
        """Take back what is on trial."""
        check(call.if_match, self._rev, NOUN)
        trial = self._init.network_trial
        reasons = [] if trial is not None else [_nothing()]
        if call.dry_run:
            tried = msgspec.convert(trial.settings, ManagementSettings) if trial else self.settings
            return _dry(differences(tried, self.settings), reasons)
        refuse(reasons, f"nothing is undone: {_first(reasons)}", hint=_HINT)
        assert trial is not None
        self._unwatch()
        await self._end(trial)
        self._events.publish("management.undone", ID, user=call.user, why="asked for")
        return await self.get()

    def watch(self) -> None:
        """Tell when what is on trial ends by itself; also after a restart of the agent."""
        self._unwatch()
        if (trial := self._init.network_trial) is not None:
            self._watching = asyncio.get_running_loop().create_task(self._watch(trial))

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

    async def _seen(self, is_so: Any) -> None:
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


def changed(old: ManagementSettings, wanted: ManagementChange) -> ManagementSettings:
    """The settings with what is asked of them."""
    asked = {
        field: value
        for field in ManagementSettings.__struct_fields__
        if (value := getattr(wanted, field)) is not UNSET
    }
    new = msgspec.structs.replace(old, **asked)
    return msgspec.structs.replace(new, nic=new.nic.lower())


def differences(old: ManagementSettings, new: ManagementSettings) -> list[str]:
    """What changes, in words."""
    found = []
    for field in ManagementSettings.__struct_fields__:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            shown = ", ".join(after) if isinstance(after, tuple) else str(after)
            found.append(f"sets {field} of the management network to {shown or 'nothing'}")
    return found


def _is_own(peer: str) -> bool:
    """Does the connection come from this very host? Then it proves nothing of the network."""
    return peer == "::1" or peer.startswith("127.") or peer in hardware.addresses()


def _dry(words: list[str], reasons: list[Reason], warnings: tuple[str, ...] = ()) -> DryRun:
    effects = () if reasons else tuple(Effect(what=line) for line in words)
    return DryRun(possible=not reasons, effects=effects, blockers=tuple(reasons), warnings=warnings)


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
