"""The verbs `netboot.*` and `neighbour.*`. Off until somebody says `serve`; then again after every restart.

    serve ──► image into memory ──► address on the switch ──► web, dnsmasq ──► record
    stop  ──► no record ──► nothing of it is left

What neighbours ask is answered by `responder`. A host that cannot serve (its card is gone, its medium was
pulled) says why, and tries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect, Nothing
from thimble.contract.netboot import Mode, NeighbourList, Netboot, ServeBoot
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.netboot import addressing, render, rules
from thimble.netboot.addressing import Serving
from thimble.netboot.http import Asgi, application
from thimble.netboot.image import Image
from thimble.netboot.probe import dhcp_server
from thimble.netboot.records import ID, NetbootRecord
from thimble.netboot.responder import Responder
from thimble.network.dhcp import Dhcp
from thimble.network.service import Network
from thimble.state.events import Events
from thimble.state.store import Collection, check
from thimble.sys import link, log

#: Neighbours' firmware asks for this one; it cannot be told another one everywhere.
PORT = 80
RETRY_S = 15.0
#: Seconds a bridge may take until its address is on it.
UP_S = 10.0

NO_LOADER = Reason(
    message="iPXE is missing on this host: Debian's package ipxe has it", code=Code.UNSUPPORTED, path="$"
)

Close = Callable[[], Awaitable[None]]


class NetbootParts(msgspec.Struct, frozen=True, kw_only=True):
    """What app.py hands over. `image`: opens an image by name; `listen`: serves on address and port."""

    state: Path
    run: Path
    durable: bool
    network: Network
    events: Events
    image: Callable[[str], AbstractAsyncContextManager[Path]]
    listen: Callable[[Asgi, str, int], Awaitable[Close]]
    clock: Callable[[], float]
    entropy: Callable[[int], bytes]


class NetbootService:
    """`netboot.*`; `neighbours` is the other noun."""

    def __init__(self, parts: NetbootParts) -> None:
        self._parts = parts
        self._records: Collection[NetbootRecord] = Collection(
            NetbootRecord, noun="netboot", durable=parts.durable
        )
        self._records.add_root("", parts.state / "netboot")
        self.responder = Responder(
            parts.state, parts.events, durable=parts.durable, clock=parts.clock, entropy=parts.entropy
        )
        self.neighbours = NeighbourService(self.responder, parts.events)
        self._dhcp = Dhcp(parts.run / "netboot")
        self._folder = parts.run / "netboot"
        self._close: Close | None = None
        self._serving: Serving | None = None
        self._why = ""
        self._busy = asyncio.Lock()
        self._again: asyncio.Task[None] | None = None

    # ── for app ──────────────────────────────────────────────────────────────────────────────────

    async def begin(self) -> None:
        """After ready: nothing of an agent before this one is left; what was served is served again."""
        self._dhcp.adopt()
        for bridge in list(self._dhcp.told()):
            await self._dhcp.stop(bridge)
        if self._records.find(ID) is not None:
            self._again = asyncio.get_running_loop().create_task(self._begin_again())

    async def close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        await self._end()

    def warnings(self) -> tuple[str, ...]:
        return (f"neighbours cannot boot from here: {self._why}",) if self._why else ()

    async def _begin_again(self) -> None:
        while (found := self._records.find(ID)) is not None and self._serving is None:
            async with self._busy:
                try:
                    await self._start(found.value)
                except Problem as problem:
                    known = self._why == problem.detail
                    await self._end()
                    self._why = problem.detail
                    if not known:
                        log.say(f"netboot: {problem.detail}")
            await asyncio.sleep(RETRY_S)

    # ── verbs ────────────────────────────────────────────────────────────────────────────────────

    async def get(self, _call: Call[None]) -> Netboot:
        found = self._records.find(ID)
        if found is None:
            return Netboot()
        settings = found.value.settings
        hidden = tuple(msgspec.structs.replace(document, text="") for document in settings.documents)
        serving, image = self._serving, self.responder.image
        why = self._why or (self._dhcp.why.get(serving.bridge, "") if serving else "it is being set up")
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

    async def serve(self, call: Call[ServeBoot]) -> Netboot | DryRun:
        wanted = call.input
        serving, reasons = await self._decide(wanted)
        if call.dry_run:
            effects = (
                ()
                if reasons or serving is None
                else tuple(Effect(what=line) for line in addressing.words(wanted, serving))
            )
            return DryRun(possible=not reasons, effects=effects, blockers=tuple(reasons))
        refuse(reasons, "neighbours cannot be booted like this")
        assert serving is not None
        new = NetbootRecord(settings=wanted, subnet=serving.cidr if serving.made else "")
        async with self._busy:
            old = self._records.find(ID)
            check(call.if_match, old.rev if old else 0, "netboot")
            await self._end()
            try:
                await self._start(new)
                self._records.put(ID, new)
            except BaseException:
                await self._end()
                if old is not None:  # what was served before is served again
                    self._again = asyncio.get_running_loop().create_task(self._begin_again())
                raise
        log.say(f"netboot: serves on the switch {wanted.switch} at {serving.address}")
        self._parts.events.publish("netboot.changed", wanted.switch, on="true")
        return await self.get(call)  # type: ignore[arg-type]

    async def stop(self, call: Call[None]) -> Nothing | DryRun:
        if self._records.find(ID) is None:
            raise Problem(Code.NOT_FOUND, "no neighbours are booted from here")
        if call.dry_run:
            return DryRun(possible=True, effects=(Effect(what="boots no neighbours any more"),))
        if self._again is not None:
            self._again.cancel()
        async with self._busy:
            self._records.delete(ID)
            await self._end()
        log.say("netboot: ended")
        self._parts.events.publish("netboot.changed", "", on="false")
        return Nothing()

    # ── deciding ─────────────────────────────────────────────────────────────────────────────────

    async def _decide(self, wanted: ServeBoot) -> tuple[Serving | None, list[Reason]]:
        """Where, and everything that stands in the way."""
        switches = self._parts.network.switches()
        reasons = [] if Path(render.LOADERS, render.EFI_LOADER).is_file() else [NO_LOADER]
        reasons += rules.reasons(wanted, {name: record.kind for name, record in switches.items()})
        reasons += await asyncio.to_thread(addressing.document_reasons, wanted)
        if any(reason.path == "$.switch" for reason in reasons):
            return None, reasons
        record = switches[wanted.switch]
        old = self._records.find(ID)
        before = old.value.subnet if old and old.value.settings.switch == wanted.switch else ""
        serving, against = await addressing.find(self._parts.network, wanted, record, before)
        reasons += against
        if serving is not None and wanted.mode is Mode.DHCP:
            other = await dhcp_server(record.bridge, int.from_bytes(self._parts.entropy(4), "big"))
            if other and other != serving.address and not self._own(other):
                reasons.append(
                    Reason(
                        message=f"{other} gives addresses on that wire already: serve with mode proxy",
                        code=Code.CONFLICT,
                        path="$.mode",
                    )
                )
        return serving, reasons

    def _own(self, address: str) -> bool:
        return self._serving is not None and self._serving.address == address

    # ── acting ───────────────────────────────────────────────────────────────────────────────────

    async def _start(self, record: NetbootRecord) -> None:
        """Raises `Problem`; what was begun is then ended by `_end`."""
        wanted = record.settings
        switch = self._parts.network.switches().get(wanted.switch)
        if switch is None:
            raise Problem(Code.NOT_FOUND, f"there is no switch {wanted.switch!r} any more")
        serving, reasons = await addressing.find(self._parts.network, wanted, switch, record.subnet)
        refuse(reasons, "neighbours cannot be booted now")
        assert serving is not None
        async with self._parts.image(wanted.image) as path:
            image = await asyncio.to_thread(Image.load, path, self._folder)
        if serving.made:
            self._parts.network.assigned[serving.switch] = serving.cidr
        await self._parts.network.sync()
        await self._addressed(serving)
        self.responder.open(wanted, serving.address, serving.bridge, image)
        self._close = await self._parts.listen(application(self.responder), serving.address, PORT)
        from thimble.network.reconcile import account

        plan = render.dhcp(
            serving.switch,
            serving.bridge,
            wanted.mode,
            serving.address,
            serving.net,
            macs=rules.addresses_for(wanted),
            most=wanted.most,
            directory=str(self._folder / serving.bridge),
            account=account(self._parts.run),
        )
        await self._dhcp.start(plan)
        self._serving, self._why = serving, ""

    async def _addressed(self, serving: Serving) -> None:
        """Wait until the address is there to be bound to."""
        deadline = asyncio.get_running_loop().time() + UP_S
        wanted = serving.cidr
        while wanted not in (await link.links()).get(serving.bridge, link.Link(name="")).addresses:
            if asyncio.get_running_loop().time() > deadline:
                why = (
                    self._parts.network.why(serving.switch) or f"{serving.address} is not on {serving.bridge}"
                )
                raise Problem(Code.UNAVAILABLE, f"the switch {serving.switch} is not up: {why}")
            await asyncio.sleep(0.1)

    async def _end(self) -> None:
        """Nothing is served any more, whatever was begun; neighbours that run are not touched."""
        if self._close is not None:
            await self._close()
            self._close = None
        for bridge in list(self._dhcp.told()):
            await self._dhcp.stop(bridge)
        self.responder.shut()
        Image.drop(self._folder)
        self._serving, self._why = None, ""
        if self._parts.network.assigned:
            self._parts.network.assigned.clear()
            await self._parts.network.sync()


class NeighbourService:
    """`neighbour.*`."""

    def __init__(self, responder: Responder, events: Events) -> None:
        self._responder = responder
        self._events = events

    async def list(self, _call: Call[None]) -> NeighbourList:
        return NeighbourList(rev=self._events.rev, neighbours=self._responder.neighbours())

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        mac = self._responder.known(call.path["mac"])
        if call.dry_run:
            return DryRun(possible=True, effects=(Effect(what=f"forgets {mac}"),))
        self._responder.forget(mac)
        return Nothing()
