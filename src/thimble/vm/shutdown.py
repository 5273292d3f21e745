"""The host goes down, or is updated: every VM is saved, shut down or killed. Each in bounded time: one that
cannot even be killed does not hold up the host.

A VM that cannot be saved is shut down instead, and the log says why.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from thimble.contract import vm as wire
from thimble.contract.common import TaskState
from thimble.contract.vm import HostShutdown
from thimble.core.problem import Problem
from thimble.core.units import MIB
from thimble.state.tasks import Progress
from thimble.sys import log
from thimble.vm.driver import Driver
from thimble.vm.record import lifecycle
from thimble.vm.table import VmTable
from thimble.vm.verbs.power import Power

#: How long a killed QEMU may take to be gone.
KILL_S = 15.0
#: So many are saved at once: more would only make one disk seek.
SAVES = 2
#: A save may take this long, and what its memory takes on a slow disk.
SAVE_S = 60.0
SLOW_DISK = 20 * MIB


class Shutdown:
    def __init__(self, table: VmTable, power: Power) -> None:
        self._table = table
        self._power = power

    async def stop_all(self, timeout: float, how: HostShutdown | None) -> None:
        """Guests that are asked get `timeout` seconds; intents stay, so that what was saved goes on later.

        From now on nothing starts, until `stay_up`.
        """
        self._table.context.host_stopping = True
        drivers = list(self._table.drivers.values())
        for driver in drivers:
            driver.monitor.cancel_restart()
        disk = asyncio.Semaphore(SAVES)
        live = [driver for driver in drivers if driver.status.state in lifecycle.LIVE]
        await asyncio.gather(*(self._stop(one, timeout, how, disk) for one in live), return_exceptions=True)

    def stay_up(self) -> None:
        """The host does not go down after all: VMs may start again."""
        self._table.context.host_stopping = False

    async def _stop(
        self, driver: Driver, timeout: float, how: HostShutdown | None, disk: asyncio.Semaphore
    ) -> None:
        spec = self._table.get(driver.id).value.spec
        how = how or spec.host_shutdown
        if how is HostShutdown.SAVE:
            async with disk:
                why = await self._saved(driver)
            if not why:
                return
            log.say(f"{spec.name} is shut down, as it cannot be saved: {why}")
        try:
            if how is not HostShutdown.KILL:
                async with asyncio.timeout(timeout + KILL_S):
                    await driver.begin_stop()
                    await self._power.await_off(driver, wire.StopRequest(timeout_s=timeout, force=True))
                return
        except (Problem, TimeoutError):
            pass
        driver.kill()
        with suppress(TimeoutError):
            await asyncio.wait_for(driver.off.wait(), KILL_S)

    async def _saved(self, driver: Driver) -> str:
        """Why it could not be; empty when it is."""
        found = self._table.get(driver.id)
        if not self._power.lasts(found.root):
            return "its datastore is in RAM"
        if reasons := driver.save_blockers():
            return reasons[0].message

        async def work(progress: Progress) -> dict[str, str]:
            return await self._power.save_now(driver, progress, stays=False)

        tasks = self._table.context.tasks
        task = tasks.start("vm.save", driver.id, work, owner="host", cancellable=True)
        limit = SAVE_S + found.value.spec.memory_mib * MIB / SLOW_DISK
        task = await tasks.wait(task.id, limit)
        if task.ended is None:
            await tasks.cancel(task.id)
            return f"it took longer than {limit:.0f} s"
        if task.state is TaskState.DONE:
            return ""
        return task.problem.detail if task.problem else "it was cancelled"
