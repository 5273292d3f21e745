"""Turning the host off and on again: guests first, then PID 1.

guests stopped, none may start ──► PID 1 takes it ──► the host goes down
                              └──► it does not: VMs may start again; those that were ended stay off
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.host import PowerRequest, Role
from thimble.contract.verbs import Started
from thimble.contract.vm import HostShutdown
from thimble.core.decision import Decision
from thimble.dispatch import run
from thimble.host.pid1 import HOSTED, HOSTED_HINT, Init
from thimble.state.background import Background
from thimble.state.tasks import Progress, Tasks
from thimble.sys import log

#: Entered, every VM is ended as asked (so many seconds for each, how) and none starts any more. Left by an
#: error, VMs may start again; left well, they may not.
GuestsStopped = Callable[[float, HostShutdown | None], AbstractAsyncContextManager[None]]


class Power:
    """`running`: how many VMs run."""

    def __init__(
        self, tasks: Tasks, init: Init, *, running: Callable[[], int], guests_stopped: GuestsStopped
    ) -> None:
        self._tasks = tasks
        self._init = init
        self._running = running
        self._guests_stopped = guests_stopped
        self._turn = asyncio.Lock()
        self._background = Background()

    def press(self, verb: str, guest_timeout: float) -> None:
        """A button asks for `verb`; guests that are asked to shut down get `guest_timeout` seconds."""
        call = Call(input=PowerRequest(guest_timeout_s=guest_timeout), role=Role.ADMIN)
        self._background.keep(f"{verb} by a button", self.off(verb, call))

    async def off(self, verb: str, call: Call[PowerRequest]) -> Started | DryRun:
        """`verb`: reboot or poweroff. Raises `Problem` UNSUPPORTED when hosted."""

        def decide() -> Decision[PowerRequest]:
            words = (f"ends {self._running()} running VMs", f"{verb}s the host")
            decision = Decision(plan=call.input, effects=words)
            return decision if self._init.present else decision.against((HOSTED,), hint=HOSTED_HINT)

        async def act(request: PowerRequest, progress: Progress) -> None:
            log.say(f"{verb} requested{' by ' + call.user if call.user else ''}: stopping the guests")
            async with AsyncExitStack() as stopped:
                async with progress.step("guests"):
                    guests = self._guests_stopped(request.guest_timeout_s, request.guests)
                    await stopped.enter_async_context(guests)
                async with progress.step(verb):
                    self._init.tell(verb)

        return await run.task(self._tasks, f"host.{verb}", "host", call, decide, act, turn=self._turn)
