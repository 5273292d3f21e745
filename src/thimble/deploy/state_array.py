"""The state of an installed host: an array (RAID 1, of one disk at first), a file system, our state on it.

    create ▸ mkfs ▸ mount ▸ copy ▸ unmount ▸ join mirrors ▸ in step ▸ stop
    └─ whatever fails: unmounted and stopped, so that the disk can be tried again ┘

An array is made even for one disk: a mirror joins it later.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from thimble.contract.storage import DatastoreKind
from thimble.deploy import partitions, sysfs
from thimble.deploy.mounts import Mounts
from thimble.deploy.plan import Target
from thimble.medium import layout
from thimble.state.store import Collection
from thimble.storage import disks as stores
from thimble.storage.contents import HEAD, identify
from thimble.storage.records import DATASTORE_UPGRADES, DatastoreRecord
from thimble.sys import block, command, files, log

_ARRAY = "md_install"  # for the time of the installation; PID 1 calls it md_state
_SYNC_S = 600.0
_PAUSE_S = 0.5
#: Of the state directory: what is not carried over.
_NOT_STATE = ("datastores", "lost+found", "deploy")


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """What the new installation gets of this host: the state, the document of this boot (in `run`).

    `taken`: the names of datastores in use.
    """

    state: Path
    run: Path
    taken: tuple[str, ...]


async def make(targets: tuple[Target, ...], carried: Carried, mounts: Mounts) -> None:
    """On the state partitions of all `targets`. Raises `Problem`."""
    from thimble.sys import raid

    first, *others = [partitions.find(target, layout.STATE) for target in targets]
    reserved = f"{stores.reserved_percent(sysfs.size_of(first)):.4f}"
    array = await asyncio.to_thread(raid.create, first, _ARRAY)
    try:
        await command.run(
            ["mkfs.ext4", "-q", "-F", "-L", layout.STATE, "-m", reserved,
             "-E", "lazy_itable_init=1,nodiscard", array],
            timeout=300,
        )  # fmt: skip
        await asyncio.to_thread(_fill, array, targets, carried, mounts)
        for other in others:
            await asyncio.to_thread(raid.join, array, other)
        await _in_step(array)
    finally:
        await asyncio.to_thread(raid.stop, array)


def drop_faulty(array: str) -> None:
    """Make room for the disk that comes in the place of one that failed. Raises `Problem`."""
    from thimble.sys import raid

    for member in raid.status(array).members:
        if "faulty" in member.state:
            raid.leave(array, member.device)


def _fill(array: str, targets: tuple[Target, ...], carried: Carried, mounts: Mounts) -> None:
    """In a thread: copy the state and name the new datastores in it."""
    import shutil

    with mounts.mounted(array, kind="ext4", write=True) as root:
        try:
            for entry in sorted(carried.state.iterdir()):
                if entry.name in _NOT_STATE:
                    continue
                if entry.is_dir():
                    shutil.copytree(entry, root / entry.name, symlinks=True, dirs_exist_ok=True)
                else:
                    shutil.copy2(entry, root / entry.name)
            root.chmod(0o755)
            _name_datastores(root, targets, carried.taken)
            os.sync()
        except OSError as error:
            raise files.problem(error, "cannot copy the state") from error


def _name_datastores(root: Path, targets: tuple[Target, ...], taken: tuple[str, ...]) -> None:
    """Records for the data partitions, beside those that were copied; the first one is the default."""
    records: Collection[DatastoreRecord] = Collection(
        DatastoreRecord, noun="datastore", upgrades=DATASTORE_UPGRADES
    )
    records.add_root("", root / "storage")
    used = set(taken)
    for number, target in enumerate(targets):
        device = partitions.find(target, layout.DATA)
        if not device:
            continue
        name = next(name for name in _names() if name not in used)
        used.add(name)
        contents = identify(block.read_ends(device, HEAD, 0)[1], b"")
        records.put(
            name,
            DatastoreRecord(kind=DatastoreKind.DISK, device=device, uuid=contents.uuid, default=number == 0),
        )


def _names() -> Iterator[str]:
    yield "data"
    number = 2
    while True:
        yield f"data{number}"
        number += 1


async def _in_step(array: str) -> None:
    """Wait for a mirror to be as good as the first disk; a slow one goes on after the next start."""
    from thimble.sys import raid

    clock = asyncio.get_running_loop().time
    deadline = clock() + _SYNC_S
    while not raid.status(array).whole:
        if clock() > deadline:
            log.say("install: the mirror is not in step yet; the installed host goes on with that")
            return
        await asyncio.sleep(_PAUSE_S)
