"""What a VM is now: volatile, and written by its own driver alone."""

from __future__ import annotations

from typing import Any

import msgspec

from thimble.contract.vm import PowerState, VmStatus
from thimble.vm.qemu.context import Context
from thimble.vm.record import lifecycle

replace = msgspec.structs.replace


class Status:
    """`value`: as clients get it. Every change is an event."""

    def __init__(self, id: str, context: Context, state: PowerState) -> None:
        self._id = id
        self._context = context
        self.value = VmStatus(state=state, since=context.clock())

    @property
    def state(self) -> PowerState:
        return self.value.state

    def set(self, state: PowerState, **more: Any) -> None:
        """Go to `state`, which must be in the table. `why` and `last_output` are cleared unless given."""
        old = self.value.state
        if state is not old and state not in lifecycle.NEXT[old]:
            raise AssertionError(f"{self._id}: {old} → {state} is not in the table")
        fresh: dict[str, Any] = {"why": "", "last_output": ""} | more
        if state is not old:
            fresh["since"] = self._context.clock()
        if state not in lifecycle.LIVE:
            fresh |= {"accel": "", "pid": None, "started": None, "pending": ()}
        self.value = replace(self.value, state=state, **fresh)
        self._context.events.publish("vm.changed", self._id, state=state, why=self.value.why)

    def found(self, state: PowerState, **more: Any) -> None:
        """What it is seen to be at the agent's start; nobody is told, for nobody listens yet."""
        self.value = replace(self.value, state=state, **more)
