"""The verbs that change nothing: lists, details, consoles."""

from __future__ import annotations

import asyncio

from thimble.console.serial import Session
from thimble.contract import vm as wire
from thimble.contract.call import Call
from thimble.core.problem import Code, Problem
from thimble.sys import logfile
from thimble.vm.record import lifecycle, view
from thimble.vm.record.lifecycle import Verb
from thimble.vm.table import VmTable

#: Bytes of the last serial output that are shown when the console's ring has none.
LOG_TAIL = 64 * 1024


class Read:
    def __init__(self, table: VmTable) -> None:
        self._table = table

    async def list(self, _call: Call[None]) -> wire.VmList:
        """From memory only."""
        rows = []
        for r in self._table.all():
            status = self._table.drivers[r.id].status
            rows.append(
                view.summary(r.id, r.value, status, lifecycle.allowed(status.state, r.value.noted.phase))
            )
        rows.sort(key=lambda row: row.name)
        return wire.VmList(rev=self._table.context.events.rev, vms=tuple(rows))

    async def get(self, call: Call[None]) -> wire.Vm:
        found = self._table.named(call.path["vm"])
        status = self._table.drivers[found.id].status
        verbs = lifecycle.allowed(status.state, found.value.noted.phase)
        return view.view(found.id, found.root, found.value, status, verbs, role=call.role)

    async def log(self, call: Call[None]) -> wire.ConsoleLog:
        found = self._table.named(call.path["vm"])
        data = self._table.context.consoles.tail(found.id)
        path = self._table.drivers[found.id].rundir.serial_log
        if not data:
            data = await asyncio.to_thread(logfile.tail, path, LOG_TAIL)
        longer = path.exists() and path.stat().st_size > len(data)
        return wire.ConsoleLog(text=data.decode(errors="replace"), truncated=longer)

    async def console(self, call: Call[None]) -> Session:
        found, driver = self._table.asked(call.path["vm"], None)
        if not found.value.spec.serial:
            raise Problem(Code.CONFLICT, "this VM was made without a serial port")
        driver.decide(Verb.CONSOLE).refuse()
        return await self._table.context.consoles.session(found.id)
