"""Serving neighbours: what makes it so, what ends it, and what tries again when it cannot be.

    start ──► image into memory ──► address on the switch ──► web, dnsmasq      a failure unwinds all of it
    end   ──► nothing of it is left; neighbours that run are not touched

What was asked for is a record, and survives: after a restart, or when its card or medium is gone, it is tried
again every now and then, and `why` says what keeps it from serving. One request or retry at a time (`turn`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from thimble.contract.netboot import Netboot
from thimble.core.problem import Code, Problem, refuse
from thimble.netboot import addressing, http, probe, render, rules
from thimble.netboot.addressing import Serving
from thimble.netboot.image import ServedImage
from thimble.netboot.records import ID, NetbootRecord
from thimble.netboot.responder import Responder
from thimble.network.dhcp import Dhcp
from thimble.network.render import DhcpPlan
from thimble.network.service import Network
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.state.store import Collection, Record
from thimble.sys import link, log

if TYPE_CHECKING:
    from thimble.http.protocol import Asgi

#: Neighbours' firmware asks for this one; another one cannot be given everywhere.
PORT = 80
RETRY_S = 15.0
#: Seconds a bridge may take until its address is on it, and between two looks.
UP_S = 10.0
LOOK_S = 0.1

Close = Callable[[], Awaitable[None]]


class NetbootParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the app hands over. `image`: opens an image by name. The last ones are others in tests."""

    state: Path
    run: Path
    durable: bool
    network: Network
    events: Events
    image: Callable[[str], AbstractAsyncContextManager[Path]]
    clock: Callable[[], float]
    entropy: Callable[[int], bytes]
    listen: Callable[[Asgi, str, int], Awaitable[Close]] = http.listen
    links: addressing.Links = link.links
    dhcp_server: Callable[[str, int], Awaitable[str]] = probe.dhcp_server
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class BootServer:
    """`serving`: where it serves now; None while it does not."""

    def __init__(self, parts: NetbootParts, *, dhcp: Dhcp | None = None) -> None:
        self.parts = parts
        self.responder = Responder(
            parts.state, parts.events, durable=parts.durable, clock=parts.clock, entropy=parts.entropy
        )
        self.serving: Serving | None = None
        self.why = ""
        self._records: Collection[NetbootRecord] = Collection(
            NetbootRecord, noun="netboot", durable=parts.durable
        )
        self._records.add_root("", parts.state / "netboot")
        self._folder = parts.run / "netboot"
        self._dhcp = dhcp or Dhcp(self._folder)
        self._close: Close | None = None
        self._busy = asyncio.Lock()
        self._background = Background()
        self._retrying: asyncio.Task[None] | None = None

    @property
    def record(self) -> Record[NetbootRecord] | None:
        """What was asked for."""
        return self._records.find(ID)

    async def begin(self) -> None:
        """After ready: nothing of an agent before this one is left; what was served is served again."""
        self._dhcp.adopt()
        await self._stop_dhcp()
        self._keep_trying()

    async def close(self) -> None:
        """The agent ends: nothing is served, the record stays."""
        await self._background.close()
        async with self._busy:
            await self._end()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One request's turn. A retry makes way for it, and goes on afterwards if there is still need."""
        retrying, self._retrying = self._retrying, None
        if retrying is not None:
            retrying.cancel()
        async with self._busy:
            try:
                yield
            finally:
                self._keep_trying()

    def view(self) -> Netboot:
        """As clients see it; documents without their texts."""
        found = self.record
        if found is None:
            return Netboot()
        settings = found.value.settings
        hidden = tuple(msgspec.structs.replace(document, text="") for document in settings.documents)
        serving, image = self.serving, self.responder.image
        why = self.why or (self._dhcp.why.get(serving.bridge, "") if serving else "it is being set up")
        return Netboot(
            on=serving is not None and not why,
            rev=found.rev,
            why=why,
            settings=msgspec.structs.replace(settings, documents=hidden),
            address=serving.address if serving else "",
            image_bytes=image.size if image else 0,
            bytes_sent=self.responder.bytes_sent,
            refused=self.responder.refused,
        )

    async def serve(self, record: NetbootRecord) -> None:
        """In our turn: this instead of what was served. Raises `Problem`; then nothing is, and that is tried
        again."""
        await self._end()
        await self._start(record)
        try:
            await self._records.commit(ID, record)
        except BaseException:
            await self._end()
            raise

    async def stop(self) -> None:
        """In our turn: serve nobody any more. Raises `Problem`."""
        await self._records.remove(ID)
        await self._end()

    # ── trying again ─────────────────────────────────────────────────────────────────────────────

    def _keep_trying(self) -> None:
        idle = self._retrying is None or self._retrying.done()
        if self.record is not None and self.serving is None and idle:
            self._retrying = self._background.keep("netboot", self._retry())

    async def _retry(self) -> None:
        while (found := self.record) is not None and self.serving is None:
            async with self._busy:
                try:
                    await self._start(found.value)
                    return
                except Problem as problem:
                    if self.why != problem.detail:
                        log.say(f"netboot: {problem.detail}")
                    self.why = problem.detail
            await self.parts.sleep(RETRY_S)

    # ── acting ───────────────────────────────────────────────────────────────────────────────────

    async def _start(self, record: NetbootRecord) -> None:
        """Raises `Problem`; then nothing of it is left."""
        try:
            await self._set_up(record)
        except BaseException:
            why = self.why
            await self._end()
            self.why = why
            raise

    async def _set_up(self, record: NetbootRecord) -> None:
        wanted, network = record.settings, self.parts.network
        switch = network.switches().get(wanted.switch)
        if switch is None:
            raise Problem(Code.NOT_FOUND, f"there is no switch {wanted.switch!r} any more")
        serving, reasons = await addressing.find(network, wanted, switch, record.subnet, self.parts.links)
        refuse(reasons, "neighbours cannot be booted now")
        assert serving is not None
        async with self.parts.image(wanted.image) as path:
            image = await asyncio.to_thread(ServedImage.load, path, self._folder)
        if serving.made:
            network.assigned[serving.switch] = serving.cidr
        await network.sync()
        await self._addressed(serving)
        self.responder.open(wanted, serving.address, serving.bridge, image)
        self._close = await self.parts.listen(http.application(self.responder), serving.address, PORT)
        await self._dhcp.start(self._dhcp_plan(record, serving))
        self.serving, self.why = serving, ""

    def _dhcp_plan(self, record: NetbootRecord, serving: Serving) -> DhcpPlan:
        from thimble.network.reconcile import account

        wanted = record.settings
        return render.dhcp(
            serving.switch,
            serving.bridge,
            wanted.mode,
            serving.address,
            serving.net,
            macs=rules.addresses_for(wanted),
            most=wanted.most,
            directory=str(self._folder / serving.bridge),
            account=account(self.parts.run),
        )

    async def _addressed(self, serving: Serving) -> None:
        """Wait until the address is there to be bound to. Raises `Problem` UNAVAILABLE."""
        nothing = link.Link(name="")
        for _ in range(round(UP_S / LOOK_S)):
            if serving.cidr in (await self.parts.links()).get(serving.bridge, nothing).addresses:
                return
            await self.parts.sleep(LOOK_S)
        why = self.parts.network.why(serving.switch) or f"{serving.address} is not on {serving.bridge}"
        raise Problem(Code.UNAVAILABLE, f"the switch {serving.switch} is not up: {why}")

    async def _end(self) -> None:
        """Nothing is served any more, whatever was begun; neighbours that run are not touched."""
        if self._close is not None:
            close, self._close = self._close, None
            await close()
        await self._stop_dhcp()
        self.responder.shut()
        await asyncio.to_thread(ServedImage.drop, self._folder)
        self.serving, self.why = None, ""
        if self.parts.network.assigned:
            self.parts.network.assigned.clear()
            await self.parts.network.sync()

    async def _stop_dhcp(self) -> None:
        for bridge in list(self._dhcp.told()):
            await self._dhcp.stop(bridge)
