"""The memory of one QEMU: to its state file and back. Effectful; what may be is decided by `saved`.

    save:    freeze ▸ write ▸ commit (the rename) ▸ … QEMU is ended by the driver
    load:    load ▸ go on: the file is marked used, and only then the guest runs

Whatever fails before the commit is undone, and the VM runs on; whatever fails before the mark leaves the
file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.core.units import MIB, show_size
from thimble.host import hardware
from thimble.state.tasks import Progress
from thimble.storage.rules import RESERVE
from thimble.sys import files
from thimble.sys import process as linux
from thimble.vm.qemu import stream
from thimble.vm.qemu.engine import Engine
from thimble.vm.record import cpus, saved_state
from thimble.vm.record.saved_state import Saved
from thimble.vm.record.spec import Definition

DISCARD = "Start it with discard_saved (--discard-saved) to boot it afresh; what was saved is gone then."


def blockers(engine: Engine, vm: Definition) -> list[Reason]:
    """Why it cannot be saved now; only for one that runs."""
    if engine.running is None or engine.who is None:
        return []
    reasons = saved_state.blockers(engine.running, vm)
    try:
        free = files.space(engine.state_file().path.parent)[1] - RESERVE
    except Problem as problem:
        return [*reasons, Reason(message=problem.detail, code=problem.code)]
    need = min(linux.memory(engine.who), engine.running.record.memory_mib * MIB) + saved_state.MARGIN
    if need > free:
        words = f"its memory takes up to {show_size(need)} on disk, and {show_size(max(0, free))} are free"
        reasons.append(Reason(message=words, code=Code.NO_SPACE))
    return reasons


async def save(
    engine: Engine,
    progress: Progress,
    *,
    goes_on: bool,
    stays: bool,
    cancelled: Callable[[], bool],
) -> int:
    """Until the commit; the length of the file. Raises `Problem` after undoing it."""
    vm = engine.record.value.definition
    refuse(blockers(engine, vm), "it cannot be saved")
    qmp, file = engine.control, engine.state_file()
    assert engine.running is not None
    value = Saved(
        running=engine.running, machine=await engine.machine_type(), goes_on=goes_on, stays=stays,
        cpu=cpus.host_cpu(hardware.cpuinfo()), when=engine.now(),
    )  # fmt: skip
    descriptor = -1
    try:
        async with progress.step("freeze"):
            descriptor = await asyncio.to_thread(file.create, value)
            await qmp.execute("stop")
        async with progress.step("write"):
            await stream.out(qmp, descriptor, len(saved_state.head(value)), progress.at, cancelled)
        async with progress.step("commit"):
            return await asyncio.to_thread(file.commit)
    except BaseException:
        with suppress(Problem):  # QEMU has died, or hangs: its status tells
            await undo(engine, goes_on=goes_on)
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)


async def undo(engine: Engine, *, goes_on: bool) -> None:
    """As if nobody had wanted to save it. Raises `Problem`; it stands still then."""
    qmp = engine.control
    await stream.stop(qmp)
    await asyncio.to_thread(lambda: engine.state_file().drop(all=True))  # first: it must never be loaded
    if goes_on:
        await qmp.execute("cont")


def loadable(engine: Engine, accel: str) -> Saved:
    """What was saved, if it can go on here. Raises `Problem`; the file stays as it is."""
    try:
        value = engine.state_file().read()
    except Problem as problem:
        raise Problem(problem.code, problem.detail, hint=DISCARD) from problem
    why = saved_state.refusal(value, engine.record.value.definition, accel, cpus.host_cpu(hardware.cpuinfo()))
    if why:
        raise Problem(Code.CONFLICT, why, hint=DISCARD)
    return value


async def load(engine: Engine, progress: Progress) -> None:
    """Fill the QEMU that was launched for it. Raises `Problem` in QEMU's words."""
    file = engine.state_file()
    descriptor = file.open()
    try:
        async with progress.step("load"):
            await stream.into(engine.control, descriptor, file.stream_at(), progress.at)
    except Problem as problem:
        raise Problem(problem.code, f"it cannot go on: {problem.detail}", hint=DISCARD) from problem
    finally:
        os.close(descriptor)


async def go_on(engine: Engine, progress: Progress, *, runs: bool) -> None:
    """Loaded: never again, and let it run if it ran. Raises `Problem`."""
    file = engine.state_file()
    async with progress.step("go-on"):
        await asyncio.to_thread(file.use)
        try:
            if runs:
                await engine.control.execute("cont")
        except Problem as problem:
            if problem.code is Code.FAILED:  # QEMU said no: the guest took no step
                await asyncio.to_thread(file.unuse)
            raise
    with suppress(Problem):  # it is removed with the next start
        await asyncio.to_thread(file.drop)
