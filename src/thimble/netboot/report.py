"""A booted host reports to the one that booted it: `thimble.report=URL` on the kernel command line.

    something changed ─► poke ─┐
    30 s are over ─────────────┴─► the report as it is then ─► POST, one at a time ─► or a longer pause

A server that does not answer costs one line in the log. Its address holds a token of ours: it is not shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from thimble import __version__
from thimble.contract.netboot import NeighbourReport, NeighbourVm, Stage
from thimble.netboot import report_http
from thimble.netboot.report_http import ReportAddress
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.sys import log

#: Seconds: between two reports where nothing changes; for one request; from one request to the next.
REPEAT_S = 30.0
REQUEST_S = 5.0
SPACE_S = 0.2
#: After a failure the pause doubles, from the first of these to the second.
PAUSE_S = (1.0, 60.0)
#: How often it is looked whether there is a way to the server at all; no packet is sent for it.
ROUTE_S = 0.5
VMS_MAX = 256
#: The longest each of a report's texts may be; the contract's.
LONGEST = {"name": 64, "version": 64, "url": 256, "certificate_sha256": 64, "problem": 1024}


class HostState(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is made of, asked anew each time.

    `document`: of the one found at boot its problem, and whether it is applied; `vms`: name, state.
    """

    certificate_sha256: str
    name: Callable[[], str]
    ready_s: Callable[[], float]
    document: Callable[[], tuple[str, bool]]
    vms: Callable[[], Iterable[tuple[str, str]]]

    def report(self) -> NeighbourReport:
        """Of a host that is ready; without the url."""
        problem, applied = self.document()
        return NeighbourReport(
            stage=Stage.FAILED if problem else Stage.APPLIED if applied else Stage.READY,
            name=self.name(),
            version=__version__,
            certificate_sha256=self.certificate_sha256,
            ready_s=self.ready_s(),
            problem=problem,
            vms=tuple(NeighbourVm(name=vm, state=state) for vm, state in self.vms()),
        )


class Http(Protocol):
    """As `report_http` has it."""

    async def source(self, address: ReportAddress) -> str: ...
    async def post(self, address: ReportAddress, body: bytes, *, timeout: float) -> str: ...


def begin(reporter: Reporter, events: Events, background: Background) -> None:
    """Report from now on: in its time, whenever a VM changes, and when the reporter is poked."""
    events.listen(lambda event: reporter.poke() if event.kind.startswith("vm.") else None)
    background.keep("report", reporter.run())


class Reporter:
    """`report`: as it is now, but for its url; `port`: where our API is.

    Raises `Problem` INVALID when `url` is no plain http address.
    """

    def __init__(
        self,
        url: str,
        report: Callable[[], NeighbourReport],
        *,
        port: int,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        http: Http = report_http,
    ) -> None:
        self._address = ReportAddress(url)
        self._report = report
        self._port = port
        self._sleep = sleep
        self._http = http
        self._changed = asyncio.Event()
        self._accepted: NeighbourReport | None = None  # the last one the server took
        self._failing = False

    def poke(self) -> None:
        """Something may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """For ever."""
        pause = PAUSE_S[0]
        while True:
            url = own_url(await self._route(), self._port)
            self._changed.clear()
            if await self._send(url):
                pause = PAUSE_S[0]
                await self._sleep(SPACE_S)
                await _first(self._news(), self._sleep(REPEAT_S))
            else:
                await self._sleep(pause)
                pause = min(pause * 2, PAUSE_S[1])

    async def _route(self) -> str:
        """The address we reach the server by. At first the host has none yet: then it is waited for."""
        while True:
            with suppress(OSError):
                return await self._http.source(self._address)
            await self._sleep(ROUTE_S)

    async def _news(self) -> None:
        """Until there is something new to report."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._now() != self._accepted:
                return

    def _now(self) -> NeighbourReport:
        """Fit for the wire, and for screens there: without the token, which the document's URL has, too."""
        report = self._report()
        if folder := self._address.target.rpartition("/")[0]:
            report = msgspec.structs.replace(report, problem=report.problem.replace(folder, ""))
        return fitting(report)

    async def _send(self, url: str) -> bool:
        """One request; was it accepted?"""
        report = self._now()
        body = msgspec.json.encode(msgspec.structs.replace(report, url=url))
        why = await self._http.post(self._address, body, timeout=REQUEST_S)
        if why and not self._failing:
            log.say(f"report: {self._address.host} takes no report: {why}; tried again now and then")
        self._failing = bool(why)
        if not why:
            self._accepted = report
        return not why


async def _first(*works: Coroutine[Any, Any, None]) -> None:
    """Until one of them has ended; the others are cancelled. Raises what that one raised."""
    running = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in running:
            task.cancel()


def own_url(address: str, port: int) -> str:
    """Where clients find us."""
    host = f"[{address}]" if ":" in address else address
    return f"https://{host}{'' if port == 443 else f':{port}'}/"


def fitting(report: NeighbourReport) -> NeighbourReport:
    """With texts and lists as long as the contract allows, and nothing JSON could not carry."""
    vms = tuple(NeighbourVm(name=_cut(vm.name, 64), state=_cut(vm.state, 32)) for vm in report.vms[:VMS_MAX])
    texts = {name: _cut(getattr(report, name), most) for name, most in LONGEST.items()}
    return msgspec.structs.replace(report, vms=vms, **texts)


def _cut(text: str, most: int) -> str:
    return text[:most].encode(errors="replace").decode()
