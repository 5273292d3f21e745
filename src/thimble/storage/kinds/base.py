"""What every kind of datastore can do, and how one does it that has nothing special."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from thimble.contract.storage import DatastoreCreate
from thimble.core.decision import Decision
from thimble.core.problem import Reason
from thimble.storage.records import DatastoreRecord
from thimble.sys import files, mount

FLAGS = mount.NOSUID | mount.NODEV | mount.NOEXEC | mount.NOATIME


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """Of this host: the state directory, the one to mount below, the program that makes file systems."""

    state: Path
    mounts: Path
    mkfs: str = "mkfs.ext4"


class Kind(ABC):
    """Methods that may wait for a disk say so; they are called in threads."""

    #: The field of the request that says where it is, or how large; fields that may come with it.
    needs: str
    also: tuple[str, ...] = ()
    #: Its disk may go while the host runs.
    goes = False
    #: What forgetting one means for what is in it.
    lost = "its files stay"

    def __init__(self, around: Surroundings) -> None:
        self.around = around

    @classmethod
    def reasons(cls, _request: DatastoreCreate, _memory: int, /) -> list[Reason]:
        """What is wrong with the fields that are this kind's, and the host's memory in bytes. Pure."""
        return []

    @abstractmethod
    def look(self, request: DatastoreCreate, others: Mapping[str, Path], /) -> Any:
        """The facts that `decide` wants; `others`: where the datastores that are there are. May wait."""

    @abstractmethod
    def decide(self, request: DatastoreCreate, facts: Any, /) -> Decision[Any]:
        """How to make the request true; its fields have been checked before. Pure."""

    @abstractmethod
    async def make(self, request: DatastoreCreate, plan: Any, /) -> DatastoreRecord:
        """Carry the plan out up to the point where it can be mounted. Raises `Problem`."""

    def at_once(self, _record: DatastoreRecord, /) -> bool:
        """Can it be mounted on the way to ready, as nothing can make it wait? Pure."""
        return False

    @abstractmethod
    def mount(self, name: str, record: DatastoreRecord, /) -> Path:
        """Bring it to where it is used, if it is not there yet. May wait. Raises `Problem`, OSError."""

    def unmount(self, name: str, *, detach: bool = False) -> None:
        """Take it from there. `detach`: out of sight, even when something still uses it. May wait."""
        del name, detach

    def present(self, _root: Path, /) -> bool:
        """Is what it lies on still plugged in? May wait."""
        return True

    def mounted(self, _root: Path, /) -> bool:
        """Is it, or is `root` a bare directory by now? May wait."""
        return True

    def space(self, root: Path) -> tuple[int, int]:
        """(size, free to us), in bytes. May wait. Raises `Problem`."""
        return files.space(root)


class Mounted(Kind):
    """A kind that is a file system of its own, below `mounts`."""

    def unmount(self, name: str, *, detach: bool = False) -> None:
        target = self.target(name)
        if mount.mounted(target) is not None:
            mount.unmount(target, detach=detach)

    def mounted(self, root: Path, /) -> bool:
        return mount.mounted(root) is not None

    def target(self, name: str) -> Path:
        return self.around.mounts / name
