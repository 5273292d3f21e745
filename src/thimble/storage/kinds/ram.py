"""A tmpfs: bounded, fast, and gone when the host reboots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from thimble.contract.storage import DatastoreCreate
from thimble.core.decision import GO, Decision
from thimble.core.problem import Code, Reason
from thimble.core.units import MIB, show_size
from thimble.storage.kinds.base import FLAGS, Mounted
from thimble.storage.records import DatastoreRecord
from thimble.sys import mount

RAM_MIN = 4 * MIB


class Ram(Mounted):
    needs = "size_bytes"
    lost = "what is in it is lost"

    @classmethod
    def reasons(cls, request: DatastoreCreate, memory: int, /) -> list[Reason]:
        size = request.size_bytes or 0
        if size < RAM_MIN:
            return [Reason(message=f"at least {show_size(RAM_MIN)}", path="$.size_bytes")]
        if size > memory:
            message = f"the host has only {show_size(memory)} of memory"
            return [Reason(message=message, code=Code.NO_MEMORY, path="$.size_bytes")]
        return []

    def look(self, _request: DatastoreCreate, _others: Mapping[str, Path], /) -> None:
        return None

    def decide(self, request: DatastoreCreate, _facts: None, /) -> Decision[bool]:
        size = show_size(request.size_bytes or 0)
        return Decision(
            plan=GO,
            effects=(f"sets aside up to {size} of memory; it is lost at reboot",),
            warnings=("what is in it is lost when the host reboots",),
        )

    async def make(self, request: DatastoreCreate, _plan: object, /) -> DatastoreRecord:
        return DatastoreRecord(kind=request.kind, size_bytes=request.size_bytes or 0)

    def at_once(self, _record: DatastoreRecord, /) -> bool:
        return True

    def mount(self, name: str, record: DatastoreRecord, /) -> Path:
        target = self.target(name)
        if not self.mounted(target):  # else by us, before the agent was started anew
            size = record.size_bytes or "50%"
            mount.mount("thimble", target, "tmpfs", flags=FLAGS, data=f"size={size},mode=711")
        return target


KIND = Ram
