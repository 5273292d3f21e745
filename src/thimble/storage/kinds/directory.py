"""A directory of a file system that somebody else has mounted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from thimble.contract.storage import DatastoreCreate
from thimble.core.decision import GO, Decision, blocked
from thimble.core.problem import Code, Problem, Reason
from thimble.storage import homes
from thimble.storage.kinds.base import Kind
from thimble.storage.records import DatastoreRecord


class DirectoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A directory as found; `overlaps` names the datastore it is inside of or around."""

    exists: bool
    writable: bool
    overlaps: str = ""


class Directory(Kind):
    needs = "path"

    @classmethod
    def reasons(cls, request: DatastoreCreate, _memory: int, /) -> list[Reason]:
        if request.path.startswith("/"):
            return []
        return [Reason(message="path is an absolute one", path="$.path")]

    def look(self, request: DatastoreCreate, others: Mapping[str, Path], /) -> DirectoryFacts:
        mine = os.path.realpath(request.path).rstrip("/") + "/"
        overlaps = ""
        for name, root in [*others.items(), ("that Thimble's state is", self.around.state)]:
            other = os.path.realpath(root).rstrip("/") + "/"
            if mine.startswith(other) or other.startswith(mine):
                overlaps = name
        return DirectoryFacts(
            exists=Path(request.path).is_dir(),
            writable=os.access(request.path, os.W_OK | os.X_OK),
            overlaps=overlaps,
        )

    def decide(self, request: DatastoreCreate, facts: DirectoryFacts, /) -> Decision[bool]:
        return decide(request, facts)

    async def make(self, request: DatastoreCreate, _plan: object, /) -> DatastoreRecord:
        return DatastoreRecord(kind=request.kind, path=request.path)

    def at_once(self, record: DatastoreRecord, /) -> bool:
        return not record.path  # it is where the state is, which has been read by then

    def mount(self, name: str, record: DatastoreRecord, /) -> Path:
        if not record.path:
            root = homes.datastore_in_state(self.around.state, name)
            root.mkdir(parents=True, exist_ok=True)
            return root
        if not Path(record.path).is_dir():
            raise Problem(Code.UNAVAILABLE, f"the directory {record.path} is missing")
        return Path(record.path)


def decide(request: DatastoreCreate, facts: DirectoryFacts) -> Decision[bool]:
    """Nothing is made: it must be there, ours to write, and apart from the others."""

    def no(message: str, code: Code) -> Decision[bool]:
        return blocked(Reason(message=message, code=code, path="$.path"))

    if not facts.exists:
        return no(f"{request.path} is not an existing directory", Code.NOT_FOUND)
    if not facts.writable:
        return no(f"{request.path} cannot be written to", Code.FORBIDDEN)
    if facts.overlaps:
        return no(f"{request.path} overlaps with the datastore {facts.overlaps}", Code.IN_USE)
    return Decision(plan=GO, effects=(f"uses the directory {request.path}",))


KIND = Directory
