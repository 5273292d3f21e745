"""Answers neighbours: their script, kernel and document; and takes their reports.

A machine is known by the MAC the kernel saw its packets come from, never by what it says. What it is given is
below a token of its own, which it reports with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import msgspec

from thimble.contract.netboot import Neighbour, NeighbourReport, ServeBoot, Stage
from thimble.core.problem import Problem
from thimble.netboot import render, rules
from thimble.netboot.http import Span
from thimble.netboot.image import ServedImage
from thimble.netboot.records import NeighbourRecord, key
from thimble.state.events import Events
from thimble.state.store import Collection
from thimble.sys import hostnet, log

#: One line and one event in so many seconds for a machine that is refused and asks on and on.
QUIET_S = 60.0
REFUSED_MAX = 256


class Live:
    """What is known of a neighbour since this agent runs."""

    def __init__(self) -> None:
        self.stage = Stage.ASKED
        self.ip = ""
        self.bytes_sent = 0
        self.loaded = self.ready = self.applied = self.seen = 0.0
        self.report: NeighbourReport | None = None


class Responder:
    def __init__(
        self,
        state: Path,
        events: Events,
        *,
        durable: bool,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        mac_of: Callable[[str, str], str] = hostnet.mac_of,
    ) -> None:
        self._events = events
        self._clock = clock
        self._entropy = entropy
        self._mac_of = mac_of
        self._records: Collection[NeighbourRecord] = Collection(
            NeighbourRecord, noun="neighbour", durable=durable
        )
        self._records.add_root("", state / "neighbours")
        self._live: dict[str, Live] = {}
        self._tokens = {one.value.token: one.value.mac for one in self._records.all()}
        self._refusals: dict[str, float] = {}
        self._wanted: ServeBoot | None = None
        self._server = self._bridge = ""
        #: Held while a record is decided and written: no two machines get one number.
        self.turn = asyncio.Lock()
        self.image: ServedImage | None = None
        self.bytes_sent = 0
        self.refused = 0

    def open(self, wanted: ServeBoot, server: str, bridge: str, image: ServedImage) -> None:
        self._wanted, self._server, self._bridge, self.image = wanted, server, bridge, image
        self.bytes_sent = self.refused = 0

    def shut(self) -> None:
        self._wanted = self.image = None

    # ── for the verbs ────────────────────────────────────────────────────────────────────────────

    def neighbours(self) -> tuple[Neighbour, ...]:
        """By their numbers."""
        found = sorted((one.value for one in self._records.all()), key=lambda record: record.number)
        return tuple(self._view(record) for record in found)

    def known(self, mac: str) -> str:
        """Raises `Problem` NOT_FOUND."""
        return self._records.get(key(mac)).value.mac

    async def forget(self, mac: str) -> None:
        """In our turn. Raises `Problem`."""
        record = self._records.get(key(mac)).value
        await self._records.remove(key(mac))
        self._tokens.pop(record.token, None)
        self._live.pop(record.mac, None)
        self._events.publish("neighbour.changed", record.mac, stage="forgotten")

    def _view(self, record: NeighbourRecord) -> Neighbour:
        live = self._live.get(record.mac) or Live()
        return Neighbour(
            number=record.number,
            mac=record.mac,
            serial=record.serial,
            ip=live.ip,
            document=record.document,
            stage=live.stage,
            boots=record.boots,
            bytes_sent=live.bytes_sent,
            asked=record.asked,
            loaded=live.loaded,
            ready=live.ready,
            applied=live.applied,
            seen=live.seen,
            report=live.report,
        )

    # ── for the web ──────────────────────────────────────────────────────────────────────────────

    def first(self) -> str:
        return render.first_script(self._server)

    def loader(self) -> Span | None:
        path = Path(render.LOADERS, render.EFI_LOADER)
        return Span(path, 0, path.stat().st_size) if self._wanted and path.is_file() else None

    async def boot(self, peer: str, query: bytes) -> str | None:
        """The script of the machine that asks; None: it is not served."""
        mac = self._mac_of(peer, self._bridge)
        serial = rules.serial(parse_qs(query.decode("ascii", "replace")).get("serial", [""])[0])
        wanted = self._wanted
        if wanted is None:
            return None
        if not mac or not rules.allowed(wanted, mac, serial):
            self._refuse(mac or peer, f"{mac or peer}, serial {serial or 'unknown'}, is not allowed")
            return None
        async with self.turn:
            record = await self._record(wanted, mac, serial)
        image = self.image
        if record is None or image is None:  # refused, or nothing is served any more
            return None
        self._tokens[record.token] = mac
        live = self._live[mac] = Live()
        live.ip, live.seen = peer, record.asked
        log.say(
            f"netboot: {mac} (number {record.number}, {peer}) boots, document {record.document or 'none'}"
        )
        self._events.publish("netboot.asked", mac, number=str(record.number), ip=peer)
        return render.script(self._server, record.token, image.words, document=bool(record.document))

    async def _record(self, wanted: ServeBoot, mac: str, serial: str) -> NeighbourRecord | None:
        """In our turn: the machine's record of this boot, on the disk; None when it is refused."""
        found = self._records.find(key(mac))
        if found is None and len(self._records.all()) >= wanted.most:
            self._refuse(mac, f"{mac} would be one more than {wanted.most}")
            return None
        document = rules.document_for(wanted, mac, serial)
        old = found.value if found else self._new(mac)
        record = msgspec.structs.replace(
            old,
            serial=serial,
            document=document.match if document else "",
            boots=old.boots + 1,
            asked=self._clock(),
        )
        try:
            await self._records.commit(key(mac), record)
        except Problem as problem:  # a full disk: without a number that lasts nobody is booted
            self._refuse(mac, problem.detail)
            return None
        return record

    def part(self, token: str, name: str) -> Span | str | None:
        mac, wanted, image = self._tokens.get(token, ""), self._wanted, self.image
        if not mac or wanted is None or image is None:
            return None
        if name == "vmlinuz":
            return image.kernel
        if name == "initrd":
            return image.initrd
        record = self._records.get(key(mac)).value
        document = rules.document_for(wanted, mac, record.serial)
        if name != "thimble.toml" or document is None:
            return None
        values = {"n": str(record.number), "mac": mac, "serial": record.serial, "server": self._server}
        return rules.filled(document.text, values)

    def sent(self, token: str, name: str, count: int, *, whole: bool) -> None:
        self.bytes_sent += count
        mac = self._tokens.get(token)
        if mac is None:
            return
        live = self._live.setdefault(mac, Live())
        live.bytes_sent += count
        live.seen = self._clock()
        if whole and name == "initrd":
            live.loaded = live.seen
            self._staged(mac, live, Stage.LOADED)

    def report(self, token: str, peer: str, body: bytes) -> bool:
        mac = self._tokens.get(token)
        if mac is None:
            return False
        try:
            report = msgspec.json.decode(body, type=NeighbourReport)
        except (msgspec.DecodeError, ValueError):
            return False
        if report.stage not in (Stage.READY, Stage.APPLIED, Stage.FAILED):
            return False
        live = self._live.setdefault(mac, Live())
        changed = live.report != report
        live.report, live.ip, live.seen = report, peer, self._clock()
        live.ready = live.ready or live.seen
        if report.stage is Stage.APPLIED:
            live.applied = live.applied or live.seen
        if report.stage is not live.stage:
            self._staged(mac, live, report.stage)
        elif changed:
            self._events.publish("neighbour.changed", mac, stage=live.stage)
        return True

    def _staged(self, mac: str, live: Live, stage: Stage) -> None:
        live.stage = stage
        why = f": {live.report.problem}" if live.report and live.report.problem else ""
        log.say(f"netboot: {mac} is {stage}{why}")
        self._events.publish("neighbour.changed", mac, stage=stage)

    def _new(self, mac: str) -> NeighbourRecord:
        taken = [one.value.number for one in self._records.all()]
        return NeighbourRecord(number=rules.next_number(taken), mac=mac, token=self._entropy(16).hex())

    def _refuse(self, who: str, why: str) -> None:
        self.refused += 1
        now = self._clock()
        if now - self._refusals.get(who, 0.0) < QUIET_S or len(self._refusals) > REFUSED_MAX:
            if len(self._refusals) > REFUSED_MAX:
                self._refusals = {name: at for name, at in self._refusals.items() if now - at < QUIET_S}
            return
        self._refusals[who] = now
        log.say(f"netboot: refused: {why}")
        self._events.publish("netboot.refused", who, why=why)
