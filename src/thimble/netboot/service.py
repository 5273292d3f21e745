"""The verbs `netboot.*` and `neighbour.*`. Off until somebody says `serve`; then again after every restart.

    serve ──► where, and every blocker ──► `server` serves it ──► record
    stop  ──► no record, nothing served

What neighbours ask is answered by `responder`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Nothing
from thimble.contract.netboot import Mode, NeighbourList, Netboot, ServeBoot
from thimble.core.decision import GO, Decision
from thimble.core.problem import Code, Problem, Reason
from thimble.dispatch import run
from thimble.netboot import addressing, render, rules
from thimble.netboot.addressing import Serving
from thimble.netboot.records import ID, NetbootRecord
from thimble.netboot.responder import Responder
from thimble.netboot.server import BootServer
from thimble.state.events import Events
from thimble.state.store import check
from thimble.sys import log

NO_LOADER = Reason(
    message="iPXE is missing on this host: Debian's package ipxe has it", code=Code.UNSUPPORTED, path="$"
)
REFUSAL = "neighbours cannot be booted like this"


class NetbootService:
    """`netboot.*`; `neighbours` is the other noun."""

    def __init__(self, server: BootServer) -> None:
        self._server = server
        self._parts = server.parts
        self.neighbours = NeighbourService(self._server.responder, self._parts.events)

    # ── for the app ──────────────────────────────────────────────────────────────────────────────

    async def begin(self) -> None:
        """After ready: what was served is served again."""
        await self._server.begin()

    async def close(self) -> None:
        """The agent ends: nothing is served, and will be again."""
        await self._server.close()

    def warnings(self) -> tuple[str, ...]:
        """For `host.get`."""
        why = self._server.why
        return (f"neighbours cannot boot from here: {why}",) if why else ()

    # ── verbs ────────────────────────────────────────────────────────────────────────────────────

    async def get(self, _call: Call[None]) -> Netboot:
        return self._server.view()

    async def serve(self, call: Call[ServeBoot]) -> Netboot | DryRun:
        async def decide() -> Decision[NetbootRecord]:
            old = self._server.record
            check(call.if_match, old.rev if old else 0, ID)
            return await self._decide(call.input)

        async def act(decision: Decision[NetbootRecord]) -> Netboot:
            assert decision.plan is not None
            await self._server.serve(decision.plan)
            view, switch = self._server.view(), call.input.switch
            log.say(f"netboot: serves on the switch {switch} at {view.address}")
            self._parts.events.publish("netboot.changed", switch, on="true")
            return view

        return await run.now(call, decide, act, turn=self._server.turn())

    async def stop(self, call: Call[None]) -> Nothing | DryRun:
        def decide() -> Decision[bool]:
            if self._server.record is None:
                raise Problem(Code.NOT_FOUND, "no neighbours are booted from here")
            return Decision(plan=GO, effects=("boots no neighbours any more",))

        async def act(_: Decision[bool]) -> Nothing:
            await self._server.stop()
            log.say("netboot: ended")
            self._parts.events.publish("netboot.changed", "", on="false")
            return Nothing()

        return await run.now(call, decide, act, turn=self._server.turn())

    # ── deciding ─────────────────────────────────────────────────────────────────────────────────

    async def _decide(self, wanted: ServeBoot) -> Decision[NetbootRecord]:
        """Where, and everything that stands in the way."""
        switches = self._parts.network.switches()
        reasons = [] if Path(render.LOADERS, render.EFI_LOADER).is_file() else [NO_LOADER]
        reasons += rules.reasons(wanted, {name: record.kind for name, record in switches.items()})
        reasons += await asyncio.to_thread(addressing.document_reasons, wanted)
        if any(reason.path == "$.switch" for reason in reasons):
            return Decision(blockers=tuple(reasons), refusal=REFUSAL)
        switch, old = switches[wanted.switch], self._server.record
        before = old.value.subnet if old and old.value.settings.switch == wanted.switch else ""
        serving, blockers = await addressing.find(
            self._parts.network, wanted, switch, before, self._parts.links
        )
        reasons += blockers
        if serving is not None and wanted.mode is Mode.DHCP:
            reasons += await self._other_dhcp(serving)
        if reasons or serving is None:
            return Decision(blockers=tuple(reasons), refusal=REFUSAL)
        plan = NetbootRecord(settings=wanted, subnet=serving.cidr if serving.made else "")
        return Decision(plan=plan, effects=tuple(addressing.words(wanted, serving)))

    async def _other_dhcp(self, serving: Serving) -> list[Reason]:
        """Who gives addresses on that wire already, unless it is us."""
        number = int.from_bytes(self._parts.entropy(4), "big")
        other = await self._parts.dhcp_server(serving.bridge, number)
        own = self._server.serving.address if self._server.serving else ""
        if not other or other in (serving.address, own):
            return []
        message = f"{other} gives addresses on that wire already: serve with mode proxy"
        return [Reason(message=message, code=Code.CONFLICT, path="$.mode")]


class NeighbourService:
    """`neighbour.*`."""

    def __init__(self, responder: Responder, events: Events) -> None:
        self._responder = responder
        self._events = events

    async def list(self, _call: Call[None]) -> NeighbourList:
        return NeighbourList(rev=self._events.rev, neighbours=self._responder.neighbours())

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        def decide() -> Decision[str]:
            mac = self._responder.known(call.path["mac"])
            return Decision(plan=mac, effects=(f"forgets {mac}",))

        async def act(decision: Decision[str]) -> Nothing:
            assert decision.plan is not None
            await self._responder.forget(decision.plan)
            return Nothing()

        return await run.now(call, decide, act, turn=self._responder.turn)
