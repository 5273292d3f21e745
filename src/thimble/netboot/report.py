"""A booted host says how it is to the one that booted it: `thimble.report=URL` on the kernel command line.

    something changed ─► poke ─┐
    30 s are over ─────────────┴─► the report as it is then ─► POST, one at a time ─► heard, or a longer pause

A server that does not answer costs one line in the log. Its address holds a token of ours: it is not shown.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from urllib.parse import urlsplit

import msgspec

from thimble import __version__
from thimble.contract.netboot import NeighbourReport, NeighbourVm, Stage
from thimble.core.problem import Code, Problem
from thimble.sys import log

#: Seconds: between two reports where nothing changes; for one request; from one request to the next.
BEAT_S = 30.0
TRY_S = 5.0
SPACE_S = 0.2
#: After a failure the pause doubles, from the first of these to the second.
PAUSE_S = (1.0, 60.0)
#: How often it is looked whether there is a way to the server at all; no packet is sent for it.
ROUTE_S = 0.5
VMS_MAX = 256
#: The longest each of a report's texts may be; the contract's.
LONGEST = {"name": 64, "version": 64, "url": 256, "certificate_sha256": 64, "problem": 1024}


class Server:
    """Where reports go. Raises `Problem` INVALID for anything but a plain http address."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self.host, self.port = parts.hostname or "", parts.port or 80
        except ValueError as error:
            raise Problem(Code.INVALID, f"thimble.report: {error}") from error
        if parts.scheme != "http" or not self.host:
            raise Problem(Code.INVALID, "thimble.report is no http address")
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def source(self) -> str:
        """The address we reach it by. Raises `OSError` when there is no way to it."""
        family, kind, _, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as asking:
            asking.connect(address)  # no packet is sent
            return str(asking.getsockname()[0])


def own_url(address: str, port: int) -> str:
    """Where clients find us."""
    host = f"[{address}]" if ":" in address else address
    return f"https://{host}{'' if port == 443 else f':{port}'}/"


def stand(
    *,
    name: str,
    certificate_sha256: str,
    ready_s: float,
    problem: str,
    applied: bool,
    vms: Iterable[tuple[str, str]],
) -> NeighbourReport:
    """Of a host that is ready. `problem`, `applied`: of the document found at boot; `vms`: name, state."""
    stage = Stage.FAILED if problem else Stage.APPLIED if applied else Stage.READY
    return NeighbourReport(
        stage=stage,
        name=name,
        version=__version__,
        certificate_sha256=certificate_sha256,
        ready_s=ready_s,
        problem=problem,
        vms=tuple(NeighbourVm(name=vm, state=state) for vm, state in vms),
    )


def fitting(report: NeighbourReport) -> NeighbourReport:
    """With texts and lists as long as the contract allows, and nothing JSON could not carry."""
    vms = tuple(NeighbourVm(name=_cut(vm.name, 64), state=_cut(vm.state, 32)) for vm in report.vms[:VMS_MAX])
    texts = {name: _cut(getattr(report, name), most) for name, most in LONGEST.items()}
    return msgspec.structs.replace(report, vms=vms, **texts)


def _cut(text: str, most: int) -> str:
    return text[:most].encode(errors="replace").decode()


class Line(http.client.HTTPConnection):
    """Its socket is known while it still connects, so that it can be hung up then, too."""

    def connect(self) -> None:
        family, kind, _, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
        self.sock = socket.socket(family, kind)
        self.sock.settimeout(self.timeout)
        self.sock.connect(address)

    def hang_up(self) -> None:
        """Wake the thread that waits on it."""
        with suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


class Reporter:
    """`tell`: the report as it is now, but for its url. `port`: where our API answers."""

    def __init__(
        self,
        url: str,
        tell: Callable[[], NeighbourReport],
        *,
        port: int,
        beat: float = BEAT_S,
        timeout: float = TRY_S,
        pause: tuple[float, float] = PAUSE_S,
    ) -> None:
        self._server = Server(url)
        self._tell = tell
        self._port = port
        self._beat = beat
        self._timeout = timeout
        self._pause = pause
        self._changed = asyncio.Event()
        self._heard: NeighbourReport | None = None  # the last one the server took
        self._failing = False

    def poke(self) -> None:
        """Something may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """For ever."""
        pause = self._pause[0]
        while True:
            await self._route()
            self._changed.clear()
            if await self._report():
                pause = self._pause[0]
                await asyncio.sleep(SPACE_S)
                await self._news()
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._pause[1])

    async def _route(self) -> None:
        """Until there is a way to the server: at first the host has no address yet."""
        while True:
            with suppress(OSError):
                await asyncio.to_thread(self._server.source)
                return
            await asyncio.sleep(ROUTE_S)

    async def _news(self) -> None:
        """Until there is something to tell, or it is time to tell the same again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._beat):
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    if self._now() != self._heard:
                        return

    def _now(self) -> NeighbourReport:
        """Fit for the wire, and for screens there: without the token, which the document's URL has, too."""
        report = self._tell()
        if folder := self._server.target.rpartition("/")[0]:
            report = msgspec.structs.replace(report, problem=report.problem.replace(folder, ""))
        return fitting(report)

    async def _report(self) -> bool:
        """One request; was it heard?"""
        report = self._now()
        line = Line(self._server.host, self._server.port, timeout=self._timeout)
        asking = asyncio.ensure_future(asyncio.to_thread(self._post, line, report))
        try:
            done, _ = await asyncio.wait({asking}, timeout=self._timeout)
        finally:  # also when cancelled: a thread that waits for its answer would hold up the agent's end
            if not asking.done():
                line.hang_up()
        if not done:  # it trickles; the thread is at its end now, and the next request waits for that
            await asyncio.wait({asking})
        why = asking.result() if done else "it takes too long"
        if why and not self._failing:
            log.say(f"report: {self._server.host} does not hear how we are: {why}; tried again now and then")
        self._failing = bool(why)
        if not why:
            self._heard = report
        return not why

    def _post(self, line: Line, report: NeighbourReport) -> str:
        """In a thread. What is wrong; nothing when it was heard."""
        try:
            url = own_url(self._server.source(), self._port)
            body = msgspec.json.encode(msgspec.structs.replace(report, url=url))
            line.request("POST", self._server.target, body, {"Content-Type": "application/json"})
            answer = line.getresponse()
            return "" if 200 <= answer.status < 300 else f"it says {answer.status}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__
        finally:
            line.close()
