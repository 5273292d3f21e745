"""The verbs of the management network: what was asked for is one record, and PID 1 makes it so.

    <state>/management/management.json      read by PID 1 at boot, and when it is told `network`

Without the record the document found at boot decides, and above all the kernel command line. Hosted, the
network is somebody else's and nothing is kept.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import UNSET

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect
from thimble.contract.management import Management, ManagementChange, ManagementSettings
from thimble.core.problem import Code, Reason, refuse
from thimble.host import rules
from thimble.host.boot import Init
from thimble.state.store import Collection, check

ID = "management"


class ManagementService:
    """`management.*`."""

    def __init__(self, state: Path, init: Init, *, durable: bool) -> None:
        self._init = init
        self.records: Collection[ManagementSettings] = Collection(
            ManagementSettings, noun="management network", durable=durable
        )
        self.records.add_shelf("", state / "management")

    @property
    def settings(self) -> ManagementSettings:
        """What was asked for, or what holds when nothing was."""
        found = self.records.find(ID)
        return found.value if found else ManagementSettings()

    async def get(self, _call: Call[None]) -> Management:
        found = self.records.find(ID)
        return Management(rev=found.rev if found else 0, managed=self._init.present, settings=self.settings)

    async def change(self, call: Call[ManagementChange]) -> Management | DryRun:
        old = self.settings
        found = self.records.find(ID)
        check(call.if_match, found.rev if found else 0, "management network")
        asked = {
            field: value
            for field in call.input.__struct_fields__
            if (value := getattr(call.input, field)) is not UNSET
        }
        new = msgspec.structs.replace(old, **asked)
        new = msgspec.structs.replace(new, nic=new.nic.lower())
        reasons = rules.management_reasons(new) + rules.time_reasons(new.ntp, "$.ntp")
        if not self._init.present:
            reasons.append(_hosted())
        if call.dry_run:
            changed = [Effect(what=line) for line in differences(old, new)]
            return DryRun(
                possible=not reasons, effects=() if reasons else tuple(changed), blockers=tuple(reasons)
            )
        hint = "Set it in that system." if not self._init.present else ""
        refuse(reasons, f"the management network cannot be so: {_first(reasons)}", hint=hint)
        if new != old or found is None:
            self.records.put(ID, new, expect=call.if_match)
            self._init.tell("network")
        return await self.get(call)  # type: ignore[arg-type]


def differences(old: ManagementSettings, new: ManagementSettings) -> list[str]:
    """What changes, in words."""
    found = []
    for field in ManagementSettings.__struct_fields__:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            shown = ", ".join(after) if isinstance(after, tuple) else str(after)
            found.append(f"sets {field} of the management network to {shown or 'nothing'}")
    return found


def _hosted() -> Reason:
    return Reason(
        message="this agent runs inside another operating system, which looks after its own network",
        code=Code.UNSUPPORTED,
    )


def _first(reasons: list[Reason]) -> str:
    return reasons[0].message if reasons else ""
