"""The host goes down, or is updated: every VM is saved, shut down or killed. Each in bounded time: one that
cannot even be killed does not hold up the host.

A VM that cannot be saved is shut down instead, and the log says why.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from thimble.contract import vm as wire
from thimble.contract.common import TaskState
from thimble.contract.vm import HostShutdown
from thimble.core.problem import Problem
from thimble.core.units import MIB
from thimble.state.tasks import Progress
from thimble.sys import log
from thimble.vm.driver import Driver
from thimble.vm.record import lifecycle

if TYPE_CHECKING:
    from thimble.vm.service import VmService

#: How long a killed QEMU may take to be gone.
KILL_S = 15.0
#: So many are saved at once: more would only make one disk seek.
SAVES = 2
#: A save may take this long, and what its memory takes on a slow disk.
SAVE_S = 60.0
SLOW_DISK = 20 * MIB


async def stop_all(service: VmService, timeout: float, how: HostShutdown | None) -> None:
    """Guests that are asked get `timeout` seconds; intents stay, so that what was saved goes on later."""
    service.world.host_stopping = True
    for driver in service.drivers.values():
        driver.cancel_restart()
    live = [driver for driver in service.drivers.values() if driver.status.state in lifecycle.LIVE]
    disk = asyncio.Semaphore(SAVES)
    work = [asyncio.ensure_future(_stop(service, driver, timeout, how, disk)) for driver in live]
    for task in work:
        with suppress(Exception):
            await task


async def _stop(
    service: VmService, driver: Driver, timeout: float, how: HostShutdown | None, disk: asyncio.Semaphore
) -> None:
    record = service.store.get(driver.id).value
    how = how or record.host_shutdown
    if how is HostShutdown.SAVE:
        async with disk:
            why = await _saved(service, driver)
        if not why:
            return
        log.say(f"{record.name} is shut down, as it cannot be saved: {why}")
    try:
        if how is not HostShutdown.KILL:
            async with asyncio.timeout(timeout + KILL_S):
                await driver.ask(driver.begin_stop)
                await service.await_off(driver, wire.StopRequest(timeout_s=timeout, force=True))
            return
    except (Problem, TimeoutError):
        pass
    driver.kill()
    with suppress(TimeoutError):
        await asyncio.wait_for(driver.off.wait(), KILL_S)


async def _saved(service: VmService, driver: Driver) -> str:
    """Why it could not be; empty when it is."""
    found = service.store.get(driver.id)
    if not service.lasts(found.root):
        return "its datastore is in RAM"
    if reasons := driver.save_blockers():
        return reasons[0].message

    async def work(progress: Progress) -> dict[str, str]:
        return await service.save_now(driver, progress, stays=False)

    tasks = service.world.tasks
    task = tasks.start("vm.save", driver.id, work, owner="host", cancellable=True)
    limit = SAVE_S + found.value.memory_mib * MIB / SLOW_DISK
    task = await tasks.wait(task.id, limit)
    if task.ended is None:
        await tasks.cancel(task.id)
        return f"it took longer than {limit:.0f} s"
    if task.state is TaskState.DONE:
        return ""
    return task.problem.detail if task.problem else "it was cancelled"
