"""Where the datastore `local` is to be, on a host that has none yet."""

from __future__ import annotations

from pathlib import Path

from thimble.contract.storage import DatastoreKind
from thimble.core.problem import Problem
from thimble.core.units import GIB, MIB
from thimble.storage.deadline import DeadlineWorker
from thimble.storage.records import DatastoreRecord
from thimble.sys import files, mount

#: A state partition below this (bytes) holds records only. A stick's has 64 MiB, an installed one 1 GiB.
SMALL_STATE = GIB + 512 * MIB


async def choose(state: Path) -> DatastoreRecord:
    """Below the state, unless that is a partition so small that one guest's disk could fill it."""
    at = mount.mounted(state)
    if at is None or not at[1].startswith("ext") or files.space(state)[0] >= SMALL_STATE:
        return DatastoreRecord(kind=DatastoreKind.DIRECTORY)
    from thimble.storage import disks

    try:
        found = await DeadlineWorker("the disk").ask(disks.instead_of_state)
    except Problem:  # a disk hangs: nothing waits for it
        found = None
    return found or DatastoreRecord(kind=DatastoreKind.RAM)
