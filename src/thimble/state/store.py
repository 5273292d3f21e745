"""Durable records: one file each, versioned, compare-and-set.

    <root>/<id>.json                 a plain collection
    <root>/<id>/<inside>             when a record lives in a directory with its things, as a VM does

    {"format": 1, "rev": 7, "record": {…}}

A root is a directory; a collection may have several (VM records live in their datastores). A file that
cannot be read, is of a newer format or has unknown fields is refused: it stays untouched, its id is taken,
and `broken` says why. The store never decides what a record means.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from thimble.core.problem import Code, Problem
from thimble.sys import files
from thimble.sys.worker import Worker

T = TypeVar("T")
Done = TypeVar("Done")
#: A file, and what is in it or why it cannot be read.
Content = tuple[Path, bytes | Exception]
#: From the record of one format, and its revision, to that of the next.
Upgrade = Callable[[dict[str, Any], int], dict[str, Any]]


class Record(msgspec.Struct, Generic[T], frozen=True):
    """A value, the revision it has, and the root it stands on."""

    id: str
    rev: int
    root: str
    value: T


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    rev: int
    record: msgspec.Raw


class Collection(Generic[T]):
    """All records of one kind, in memory and on disk. For the loop's thread alone."""

    def __init__(
        self,
        kind: type[T],
        *,
        noun: str,
        inside: str = "",
        upgrades: tuple[Upgrade, ...] = (),
        durable: bool = True,
    ) -> None:
        """`upgrades[n]` turns a record of format n+1 into n+2; the present format is their count + 1."""
        self.noun = noun
        self.broken: dict[Path, str] = {}
        self._kind = kind
        self._inside = inside
        self._upgrades = upgrades
        self._durable = durable
        self._roots: dict[str, Path] = {}
        self._records: dict[str, Record[T]] = {}
        #: By root: whose turn it is, and the thread that writes there.
        self._writers: dict[str, tuple[asyncio.Lock, Worker]] = {}

    @property
    def format(self) -> int:
        return len(self._upgrades) + 1

    @property
    def roots(self) -> frozenset[str]:
        """The names of those in use."""
        return frozenset(self._roots)

    def add_root(self, name: str, directory: Path) -> list[Record[T]]:
        """Take a root into use and read all that stands on it; what is refused is in `broken`.

        Waits for the disk, so it is for the agent's start. Raises `OSError` when it cannot be looked at.
        """
        return self._take(name, directory, self._read(directory))

    async def bring_root(self, name: str, directory: Path) -> list[Record[T]]:
        """`add_root`, with the waiting for the disk in a thread."""
        read = await Worker(f"{self.noun} {name}").run(lambda: self._read(directory))
        return self._take(name, directory, read)

    def _read(self, directory: Path) -> list[Content]:
        """Each record's file and its content, or why it has none; what writes left that were cut off goes."""
        if not directory.is_dir():  # it is made by the first write: an idle host writes nothing
            return []
        pattern = f"*/.{self._inside}.*.new" if self._inside else ".*.json.*.new"
        for unfinished in directory.glob(pattern):
            with suppress(OSError):
                unfinished.unlink()
        found: list[Content] = []
        for path in sorted(directory.glob(f"*/{self._inside}" if self._inside else "*.json")):
            if path.name.startswith(".") and not self._inside:
                continue
            try:
                if not files.regular(path, directory):
                    raise ValueError("it is not a plain file")
                found.append((path, path.read_bytes()))
            except (OSError, ValueError) as error:
                found.append((path, error))
        return found

    def _take(self, name: str, directory: Path, read: list[Content]) -> list[Record[T]]:
        self._roots[name] = directory
        found = []
        for path, data in read:
            id = path.parent.name if self._inside else path.stem
            try:
                if id in self._records:
                    raise ValueError(f"{id} is also on {self._records[id].root}")
                if isinstance(data, Exception):
                    raise data
                record = self._decode(id, name, data)
            except Exception as error:  # unreadable, not ours, or an upgrade stumbles over it: refused
                self.broken[path] = str(error) or type(error).__name__
                continue
            self._records[id] = record
            found.append(record)
        return found

    def refuse(self, id: str, why: str) -> None:
        """Do not use a record that was read: it becomes a broken one. Its file stays."""
        record = self._records.pop(id)
        self.broken[self.path(id, record.root)] = why

    def drop_root(self, name: str) -> None:
        """Forget a root and its records; the files stay."""
        directory = self._roots.pop(name, None)
        self._records = {id: record for id, record in self._records.items() if record.root != name}
        self.broken = {
            p: why for p, why in self.broken.items() if directory is None or directory not in p.parents
        }

    def all(self) -> list[Record[T]]:
        return list(self._records.values())

    def get(self, id: str) -> Record[T]:
        """Raises `Problem` NOT_FOUND."""
        try:
            return self._records[id]
        except KeyError:
            raise Problem(Code.NOT_FOUND, f"there is no {self.noun} {id!r}") from None

    def find(self, id: str) -> Record[T] | None:
        return self._records.get(id)

    def put(self, id: str, value: T, *, root: str = "", expect: int | None = None) -> Record[T]:
        """Make `value` durable under `id`: the commit point. `expect`: the revision it has now (0: none).

        Waits for the disk, so it is for the agent's start; verbs `commit`.
        Raises `Problem` STALE, NO_SPACE, FAILED; then nothing has changed.
        """
        record, path, data = self._prepared(id, value, root, expect)
        files.write_atomic(path, data, durable=self._durable)
        self._records[id] = record
        return record

    def _prepared(self, id: str, value: T, root: str, expect: int | None) -> tuple[Record[T], Path, bytes]:
        old = self._records.get(id)
        rev = old.rev if old else 0
        check(expect, rev, self.noun)
        record = Record(id, rev + 1, old.root if old else root, value)
        path = self.path(id, record.root)
        if old is None and path in self.broken:
            raise Problem(Code.EXISTS, f"{path} is there but cannot be read: {self.broken[path]}")
        return record, path, render(value, format=self.format, rev=record.rev)

    async def commit(self, id: str, value: T, *, root: str = "", expect: int | None = None) -> Record[T]:
        """`put`, with the waiting for the disk in a thread: what a verb does.

        Commits to one root come in the order they were asked for; `expect` is compared then.
        A cancelled caller leaves it to its end. Raises as `put`.
        """
        old = self._records.get(id)
        return await self._in_turn(old.root if old else root, lambda: self._write(id, value, root, expect))

    async def amend(self, id: str, change: Callable[[T], T]) -> Record[T]:
        """Commit what `change` makes of the value it has when its turn has come; the same value is no change.

        Raises `Problem` NOT_FOUND, and as `put`.
        """

        async def work() -> Record[T]:
            old = self.get(id)
            value = change(old.value)
            return old if value == old.value else await self._write(id, value, old.root, None)

        return await self._in_turn(self.get(id).root, work)

    async def remove(self, id: str, *, expect: int | None = None) -> None:
        """`delete`, with the waiting for the disk in a thread. Raises as `delete`."""
        await self._in_turn(self.get(id).root, lambda: self._unlink(id, expect))

    async def _in_turn(self, root: str, work: Callable[[], Awaitable[Done]]) -> Done:
        turn, _ = self._writers.setdefault(root, (asyncio.Lock(), Worker(f"{self.noun} {root}".strip())))

        async def whole() -> Done:
            async with turn:
                return await work()

        return await asyncio.shield(asyncio.ensure_future(whole()))

    async def _write(self, id: str, value: T, root: str, expect: int | None) -> Record[T]:
        record, path, data = self._prepared(id, value, root, expect)
        _, worker = self._writers[record.root]
        await worker.run(lambda: files.write_atomic(path, data, durable=self._durable))
        if record.root in self._roots:  # else its root was dropped meanwhile; the file is there
            self._records[id] = record
        return record

    async def _unlink(self, id: str, expect: int | None) -> None:
        record = self.get(id)
        check(expect, record.rev, self.noun)
        path = self.path(id, record.root)
        _, worker = self._writers[record.root]
        await worker.run(lambda: files.remove(path))
        self._records.pop(id, None)

    def delete(self, id: str, *, expect: int | None = None) -> None:
        """Remove the record's file, not its directory. Raises `Problem` NOT_FOUND, STALE, FAILED."""
        record = self.get(id)
        check(expect, record.rev, self.noun)
        files.remove(self.path(id, record.root))
        del self._records[id]

    def path(self, id: str, root: str) -> Path:
        return self._roots[root] / id / self._inside if self._inside else self._roots[root] / f"{id}.json"

    def _decode(self, id: str, root: str, data: bytes) -> Record[T]:
        head = msgspec.json.decode(data, type=_File)
        if head.format > self.format:
            raise ValueError(
                f"written by a newer Thimble (format {head.format}, this one knows {self.format})"
            )
        if head.format < 1:
            raise ValueError(f"no Thimble ever wrote format {head.format}")
        if head.format == self.format:
            return Record(id, head.rev, root, msgspec.json.decode(head.record, type=self._kind))
        tree = msgspec.json.decode(head.record)
        for upgrade in self._upgrades[head.format - 1 :]:
            tree = upgrade(tree, head.rev)
        return Record(id, head.rev, root, msgspec.convert(tree, self._kind))


def render(value: object, *, format: int, rev: int = 1) -> bytes:
    """The file of a record, for those too who write one for another host: an installation."""
    raw = msgspec.Raw(msgspec.json.encode(value))
    return msgspec.json.format(msgspec.json.encode(_File(format, rev, raw)), indent=1) + b"\n"


def check(expect: int | None, rev: int, noun: str) -> None:
    """Compare-and-set: raises `Problem` STALE unless `expect` is None or `rev`."""
    if expect is not None and expect != rev:
        raise Problem(
            Code.STALE,
            f"this {noun} has revision {rev} now, not {expect}",
            hint="Read it again and repeat the change.",
        )


def is_durable(directory: Path) -> bool:
    """Does what is written there survive a reboot? False on tmpfs and ramfs."""
    best, kind = "", ""
    target = os.path.realpath(directory)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, found, *_ = line.split()
        if (target + "/").startswith(where.rstrip("/") + "/") and len(where) >= len(best):
            best, kind = where, found
    return kind not in ("tmpfs", "ramfs", "rootfs")
