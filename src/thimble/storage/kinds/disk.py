"""A whole disk or partition with ext4, mounted by us.

A disk is taken over only when it shows our label, and formatted only when that was asked; what holds anything
needs `erase` on top of it; what is in use is never touched.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from thimble.contract.storage import DatastoreCreate
from thimble.core.decision import Decision, blocked
from thimble.core.problem import Code, Reason
from thimble.core.units import MIB, show_size
from thimble.storage import disks
from thimble.storage.contents import LABEL, STATE_LABEL
from thimble.storage.disks import DeviceFacts
from thimble.storage.kinds.base import FLAGS, Mounted
from thimble.storage.records import DatastoreRecord
from thimble.sys import mount
from thimble.sys.worker import Worker

#: A disk datastore smaller than this is of no use.
DISK_MIN = 64 * MIB


class DiskPlan(msgspec.Struct, frozen=True, kw_only=True):
    """`format`: make a file system on it first."""

    device: str
    format: bool


class Disk(Mounted):
    needs = "device"
    also = ("format", "erase")
    goes = True

    @classmethod
    def reasons(cls, request: DatastoreCreate, _memory: int, /) -> list[Reason]:
        found = []
        if not request.device.startswith("/dev/"):
            found.append(Reason(message="device begins with /dev/", path="$.device"))
        if request.erase and not request.format:
            found.append(Reason(message="erase goes with format", path="$.erase"))
        return found

    def look(self, request: DatastoreCreate, _others: Mapping[str, Path], /) -> DeviceFacts:
        return disks.device_facts(request.device)

    def decide(self, request: DatastoreCreate, facts: DeviceFacts, /) -> Decision[DiskPlan]:
        return decide(request, facts)

    async def make(self, request: DatastoreCreate, plan: DiskPlan, /) -> DatastoreRecord:
        worker = Worker(f"disk {plan.device}")
        if plan.format:
            await disks.make_file_system(plan.device, self.around.mkfs)
        facts = await worker.run(lambda: disks.device_facts(plan.device))
        return DatastoreRecord(kind=request.kind, device=request.device, uuid=facts.contents.uuid)

    def mount(self, name: str, record: DatastoreRecord, /) -> Path:
        target = self.target(name)
        if not self.mounted(target):  # else by us, before the agent was started anew
            mount.mount(disks.find_disk(record), target, "ext4", flags=FLAGS, data="errors=remount-ro")
        return target

    def present(self, root: Path, /) -> bool:
        try:
            device = root.stat().st_dev
        except OSError:
            return False
        return Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").exists()


def decide(request: DatastoreCreate, facts: DeviceFacts) -> Decision[DiskPlan]:
    """May the disk be used, and does it need a file system before? Pure."""

    def no(message: str, code: Code) -> Decision[DiskPlan]:
        return blocked(Reason(message=message, code=code, path="$.device"))

    kind, label = facts.contents.kind, facts.contents.label
    mounts = f"mounts {facts.device}"
    if facts.problem:
        return no(facts.problem, Code.NOT_FOUND)
    if facts.in_use:
        return no(f"{facts.device} is in use: mounted, or part of something that is", Code.IN_USE)
    if label == STATE_LABEL:
        return no(f"{facts.device} holds Thimble's own state", Code.IN_USE)
    if not request.format:
        if kind == "ext4" and label == LABEL:
            return Decision(plan=DiskPlan(device=facts.device, format=False), effects=(mounts,))
        what = f"holds {kind}, not a datastore" if kind else "is blank"
        return no(f"{facts.device} {what}; ask for format to make one of it", Code.CONFLICT)
    if facts.size_bytes < DISK_MIN:
        return no(f"{facts.device} has less than {show_size(DISK_MIN)}", Code.INVALID)
    if kind and not request.erase:
        return no(f"{facts.device} holds {kind}; ask for erase to lose that", Code.CONFLICT)
    loss = f", losing what is on it ({kind})" if kind else ""
    makes = f"makes an ext4 file system on {facts.device} ({show_size(facts.size_bytes)}){loss}"
    return Decision(plan=DiskPlan(device=facts.device, format=True), effects=(makes, mounts))


KIND = Disk
