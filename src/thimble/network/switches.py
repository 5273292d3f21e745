"""The switches as records: which there are, what they are called in the kernel, which subnets are free.

    <state>/switches/<name>.json

The first ones are made here: `nat`, and `uplink` over the card of the management network, whose bridge PID 1
made (`boot.json`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from thimble.contract.network import Protocol, SwitchKind
from thimble.core.problem import Code, Problem
from thimble.network import subnet
from thimble.network.records import PortUse, SwitchRecord
from thimble.state.store import Collection, is_durable
from thimble.sys import hostnet, log
from thimble.sys.worker import Worker

if TYPE_CHECKING:
    from thimble.network.rules import Facts

UPLINK = "uplink"
FIRST = "nat"


class Switches:
    """`root`: the state directory; `run`: where PID 1 left `boot.json`."""

    def __init__(self, root: Path, run: Path) -> None:
        self.owner = f"thimble:{crc32(os.fsencode(root.absolute())):08x}"
        self.records: Collection[SwitchRecord] = Collection(
            SwitchRecord, noun="switch", durable=is_durable(root)
        )
        self._folder = root / "switches"
        self._boot = run / "boot.json"
        self._known: tuple[tuple[int, int], _Boot] | None = None  # what boot.json said, and which one
        self._worker = Worker("network")

    async def open(self) -> None:
        """Read the records; make the first ones."""
        first = not self._folder.exists()
        self.records.add_root("", self._folder)
        if first:
            await self._make_first()
        await self.adopt_uplink()

    def all(self) -> dict[str, SwitchRecord]:
        """By name; `uplink` is what the kernel calls the card now, or its MAC while it is not there."""
        found = {record.id: record.value for record in self.records.all()}
        if any(":" in record.uplink for record in found.values()):
            names = hostnet.macs()
            for id, record in found.items():
                if record.uplink in names:
                    found[id] = msgspec.structs.replace(record, uplink=names[record.uplink])
        return found

    def bridge_name(self, switch: str) -> str:
        """A kernel name for the bridge of a new switch, the same whenever it is asked for."""
        return f"tb-{crc32(f'{self.owner}/{switch}'.encode()):08x}"

    def free_subnet(self) -> subnet.Subnet:
        """Raises `Problem` IN_USE when there is none."""
        taken = [subnet.Subnet(base, prefix) for _, base, prefix in hostnet.routes() if prefix]
        taken += [net for record in self.all().values() if (net := subnet.parse(record.subnet))]
        found = subnet.choose(taken, crc32(self.owner.encode()))
        if found is None:
            raise Problem(Code.IN_USE, "no 192.168.x.0/24 is free", hint="Name a subnet.")
        return found

    async def facts(self, hosts: tuple[PortUse, ...]) -> Facts:
        """For the checks of a new switch, with the VMs' `hosts`. Raises `Problem`."""
        from thimble.network.rules import Facts
        from thimble.sys import link

        links = await link.links()
        routes, listening = await self._worker.run(lambda: (hostnet.routes(), hostnet.listening()))
        return Facts(
            switches=self.all(),
            links=links,
            routes=tuple(subnet.Subnet(base, prefix) for _, base, prefix in routes),
            default_route=tuple(name for name, _, prefix in routes if prefix == 0),
            hosts=hosts,
            listening=frozenset((Protocol(name), port) for name, port in listening),
        )

    async def move(self, switch: str, in_use: Callable[[], bool]) -> bool:
        """Give a switch another subnet, if its present one was chosen by us and no VM is on it. Whether it
        was given one.
        """

        def elsewhere(record: SwitchRecord) -> SwitchRecord:
            if not record.chosen or in_use():
                return record
            return msgspec.structs.replace(record, subnet=str(self.free_subnet()))

        try:
            before = self.records.get(switch)
            return await self.records.amend(switch, elsewhere) != before
        except Problem:
            return False

    async def adopt_uplink(self) -> None:
        """Take the bridge that PID 1 made over the first NIC as the switch `uplink`.

        At the start PID 1 may not know yet which NIC: then the one remembered stands, and nothing is written.
        """
        boot = await self._worker.run(self._read_boot)
        if boot is None or boot.uplink is None or not boot.uplink.bridge:
            return
        found = self.records.find(UPLINK)
        nic = boot.uplink.nic or (found.value.uplink if found else "")
        record = SwitchRecord(kind=SwitchKind.BRIDGED, bridge=boot.uplink.bridge, uplink=nic, adopted=True)
        if found is None or (found.value.adopted and found.value != record):
            try:
                await self.records.commit(UPLINK, record)
            except Problem as problem:  # a full disk: the host is to be reachable all the same
                log.say(f"the switch {UPLINK}: {problem.detail}")

    def _read_boot(self) -> _Boot | None:
        """What PID 1 wrote; decoded only when it is new. Blocks."""
        try:
            facts = self._boot.stat()
            stamp = (facts.st_mtime_ns, facts.st_ino)
            if self._known is None or self._known[0] != stamp:
                self._known = stamp, msgspec.json.decode(self._boot.read_bytes(), type=_Boot)
            return self._known[1]
        except (OSError, ValueError, msgspec.MsgspecError):
            return None

    async def _make_first(self) -> None:
        try:
            net = str(self.free_subnet())
        except Problem:
            return
        record = SwitchRecord(kind=SwitchKind.NAT, bridge=self.bridge_name(FIRST), subnet=net, chosen=True)
        await self.records.commit(FIRST, record, expect=0)


class _Uplink(msgspec.Struct, frozen=True):
    bridge: str = ""
    nic: str = ""


class _Boot(msgspec.Struct, frozen=True):
    uplink: _Uplink | None = None
