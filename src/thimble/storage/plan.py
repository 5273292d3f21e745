"""What creating a datastore takes, as effects that can tell themselves. Pure.

A disk is taken over only when it shows our label, and formatted only when that was asked; what holds anything
needs `erase` on top of it; what is in use is never touched.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from thimble.contract.storage import DatastoreCreate, DatastoreKind
from thimble.core.decision import Accept, Deny
from thimble.core.problem import Code, Reason
from thimble.core.units import show_size
from thimble.storage.contents import Contents
from thimble.storage.rules import DISK_MIN

#: The file system label that says "a datastore of Thimble". The state partition has its own.
LABEL = "thimble-data"
STATE_LABEL = "thimble-state"


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A disk as found. `problem` says why it cannot even be looked at."""

    device: str
    size_bytes: int = 0
    contents: Contents = Contents()
    in_use: bool = False
    problem: str = ""


class DirectoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A directory as found; `overlaps` names the datastore it is inside of or around."""

    path: str
    exists: bool
    writable: bool
    overlaps: str = ""


class MakeFileSystem(msgspec.Struct, frozen=True):
    device: str
    size_bytes: int
    loses: str

    def describe(self) -> str:
        loss = f", losing what is on it ({self.loses})" if self.loses else ""
        return f"makes an ext4 file system on {self.device} ({show_size(self.size_bytes)}){loss}"


class MountDisk(msgspec.Struct, frozen=True):
    device: str

    def describe(self) -> str:
        return f"mounts {self.device}"


class MountRam(msgspec.Struct, frozen=True):
    size_bytes: int

    def describe(self) -> str:
        return f"sets aside up to {show_size(self.size_bytes)} of memory; it is lost at reboot"


class UseDirectory(msgspec.Struct, frozen=True):
    path: str

    def describe(self) -> str:
        return f"uses the directory {self.path}"


DatastoreEffect: TypeAlias = MakeFileSystem | MountDisk | MountRam | UseDirectory
Decision: TypeAlias = Accept[tuple[DatastoreEffect, ...]] | Deny


def datastore(request: DatastoreCreate, facts: DeviceFacts | DirectoryFacts | None) -> Decision:
    """How to make `request` true; its fields have been checked before."""
    if request.kind is DatastoreKind.RAM:
        return Accept((MountRam(request.size_bytes or 0),))
    if isinstance(facts, DirectoryFacts):
        return _directory(facts)
    assert isinstance(facts, DeviceFacts)
    return _disk(request, facts)


def _directory(facts: DirectoryFacts) -> Decision:
    def deny(message: str, code: Code) -> Deny:
        return Deny((Reason(message=message, code=code, path="$.path"),))

    if not facts.exists:
        return deny(f"{facts.path} is not an existing directory", Code.NOT_FOUND)
    if not facts.writable:
        return deny(f"{facts.path} cannot be written to", Code.FORBIDDEN)
    if facts.overlaps:
        return deny(f"{facts.path} overlaps with the datastore {facts.overlaps}", Code.IN_USE)
    return Accept((UseDirectory(facts.path),))


def _disk(request: DatastoreCreate, facts: DeviceFacts) -> Decision:
    def deny(message: str, code: Code) -> Deny:
        return Deny((Reason(message=message, code=code, path="$.device"),))

    kind, label = facts.contents.kind, facts.contents.label
    if facts.problem:
        return deny(facts.problem, Code.NOT_FOUND)
    if facts.in_use:
        return deny(f"{facts.device} is in use: mounted, or part of something that is", Code.IN_USE)
    if label == STATE_LABEL:
        return deny(f"{facts.device} holds Thimble's own state", Code.IN_USE)
    if not request.format:
        if kind == "ext4" and label == LABEL:
            return Accept((MountDisk(facts.device),))
        what = f"holds {kind}, not a datastore" if kind else "is blank"
        return deny(f"{facts.device} {what}; ask for format to make one of it", Code.CONFLICT)
    if facts.size_bytes < DISK_MIN:
        return deny(f"{facts.device} has less than {show_size(DISK_MIN)}", Code.INVALID)
    if kind and not request.erase:
        return deny(f"{facts.device} holds {kind}; ask for erase to lose that", Code.CONFLICT)
    return Accept((MakeFileSystem(facts.device, facts.size_bytes, kind), MountDisk(facts.device)))
