"""A mirror of two partitions: made, joined, left, by the kernel's sysfs files (admin-guide/md.rst).

A mirror begins with one member and room for a second. Format 1.2: the superblock lies 4 KiB into the member,
the data 1 MiB into it (linux/raid/md_p.h). What is on the array is the caller's. All of this may wait for
disks: call it in a thread.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem
from thimble.sys import files

NAME = "thimble-state"
DATA_OFFSET = 1 << 20
_SUPERBLOCK = struct.Struct("<IIII16s32sQIIQIIIIQIIIIQQQQII16sBBHIQQQII32s")
_AT, _MAGIC, _SPARE, _ROLES = 4096, 0xA92B4EFC, 0xFFFF, 128
_RESYNC_NOTHING = (1 << 64) - 1
_NEW = Path("/sys/module/md_mod/parameters/new_array")


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of a mirror. `state` as the kernel says it: in_sync, spare, faulty…"""

    device: str
    state: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """`wanted` members it is meant to have; `synced`: 0 to 1 while one is brought up to date."""

    members: tuple[Member, ...]
    wanted: int
    synced: float | None = None

    @property
    def whole(self) -> bool:
        return sum("in_sync" in one.state for one in self.members) >= self.wanted


def create(device: str, array: str) -> str:
    """Make a mirror `array` (a name like md_new) with `device` as its only member; the array's device.

    Whatever was on `device` is lost. Raises `Problem`.
    """
    _write_superblock(device, os.urandom(16), members=1, number=0, roles={0: 0}, events=1)
    try:
        _load()
        _NEW.write_text(array)
        here = _place(array)
        (here / "metadata_version").write_text("1.2")
        (here / "new_dev").write_text(_number(device))
        (here / "array_state").write_text("active")
    except OSError as error:
        raise files.problem(error, f"cannot make a mirror of {device}") from error
    return f"/dev/{array}"


def join(array: str, device: str) -> None:
    """Make `device` the second member; the kernel copies to it from now on. Raises `Problem`."""
    here = _place(array)
    try:
        known = [one for one in status(array).members if "in_sync" in one.state]
        if len(known) != 1:
            raise Problem(
                Code.CONFLICT, f"{array} has {len(known)} members in step: there is no place for one"
            )
        if int((here / "raid_disks").read_text().split()[0]) < 2:
            (here / "raid_disks").write_text("2")
        uuid = bytes.fromhex((here / "uuid").read_text().strip().replace("-", ""))
        _write_superblock(device, uuid, members=2, number=_free_number(array), roles={}, events=0)
        (here / "new_dev").write_text(_number(device))
    except OSError as error:
        raise files.problem(error, f"{device} cannot join the mirror {array}") from error


def leave(array: str, device: str) -> None:
    """Take a member out for good; its superblock goes, so that it is never taken for one again."""
    here = _place(array)
    state = here / f"dev-{Path(device).name}" / "state"
    try:
        if state.exists():
            if "faulty" not in state.read_text():
                state.write_text("faulty")
            state.write_text("remove")
        if (here / "raid_disks").read_text().split()[0] == "2":
            (here / "raid_disks").write_text("1")
        if Path(device).exists():
            _wipe(device)
    except OSError as error:
        raise files.problem(error, f"{device} cannot leave the mirror {array}") from error


def stop(array: str) -> None:
    """End it; nothing on it may be mounted. The members keep their data. Raises `Problem`."""
    try:
        (_place(array) / "array_state").write_text("clear")
    except OSError as error:
        raise files.problem(error, f"cannot stop the mirror {array}") from error


def status(array: str) -> Status:
    """Raises `Problem` NOT_FOUND."""
    here = _place(array)
    if not here.is_dir():
        raise Problem(Code.NOT_FOUND, f"there is no mirror {array}")
    members = tuple(
        Member(device=f"/dev/{place.name.removeprefix('dev-')}", state=(place / "state").read_text().strip())
        for place in sorted(here.glob("dev-*"))
    )
    done, _, whole = (here / "sync_completed").read_text().partition("/")
    synced = int(done) / int(whole) if done.strip().isdecimal() and whole.strip().isdecimal() else None
    wanted = int((here / "raid_disks").read_text().split()[0])
    return Status(members=members, wanted=wanted, synced=synced)


def superblock(
    uuid: bytes,
    device_uuid: bytes,
    *,
    data_bytes: int,
    members: int,
    number: int,
    roles: dict[int, int],
    events: int,
) -> bytes:
    """The superblock of a member with room for `data_bytes`. Pure.

    `number` is its own in the table of roles; `roles` says what place each number has, none for a spare.
    """
    table = [roles.get(one, _SPARE) for one in range(_ROLES)]
    sectors, offset = data_bytes // 512, DATA_OFFSET // 512
    nothing = (0,) * 7  # no bitmap, no reshape

    def packed(checksum: int) -> bytes:
        block = _SUPERBLOCK.pack(
            *(_MAGIC, 1, 0, 0, uuid, NAME.encode(), 0, 1, 0, sectors, 0, members, *nothing),
            *(offset, sectors, _AT // 512, 0, number, 0, device_uuid, 0, 0, 0, 0),
            *(0, events, _RESYNC_NOTHING, checksum, _ROLES, b""),
        )
        return block + struct.pack(f"<{_ROLES}H", *table)

    total = sum(struct.unpack(f"<{(256 + 2 * _ROLES) // 4}I", packed(0)))
    return packed((total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)


def _write_superblock(
    device: str, uuid: bytes, *, members: int, number: int, roles: dict[int, int], events: int
) -> None:
    try:
        _wipe(device)
        descriptor = os.open(device, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
        try:
            room = (os.lseek(descriptor, 0, os.SEEK_END) - DATA_OFFSET) // 65536 * 65536
            if room <= 0:
                raise Problem(Code.INVALID, f"{device} is too small for a mirror")
            block = superblock(
                uuid,
                os.urandom(16),
                data_bytes=room,
                members=members,
                number=number,
                roles=roles,
                events=events,
            )
            os.pwrite(descriptor, block, _AT)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise files.problem(error, f"cannot write to {device}") from error


def _wipe(device: str) -> None:
    """No old signature may show in what lies before the data."""
    descriptor = os.open(device, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, bytes(DATA_OFFSET), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_number(array: str) -> int:
    """A number in the table of roles that no present member has: the highest used, plus one."""
    numbers = []
    for one in status(array).members:
        descriptor = os.open(one.device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            numbers.append(int.from_bytes(os.pread(descriptor, 4, _AT + 160), "little"))
        finally:
            os.close(descriptor)
    return max(numbers) + 1


def _place(array: str) -> Path:
    return Path("/sys/block") / Path(array).name / "md"


def _number(device: str) -> str:
    return Path(f"/sys/class/block/{Path(device).name}/dev").read_text().strip()


def _load() -> None:
    """The driver, by the program the kernel itself calls for it."""
    if not _NEW.exists():
        import subprocess  # late: nobody needs it on the way to ready

        modprobe = Path("/proc/sys/kernel/modprobe").read_text().strip()
        subprocess.run([modprobe, "-q", "--", "raid1"], check=False, timeout=60)
