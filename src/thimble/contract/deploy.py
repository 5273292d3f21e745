"""Installing, updating and rolling back on the wire, and the keys updates are accepted from."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from thimble.contract.common import In, Listed, Name, Out

#: `image` that means: what was sent with `deploy.upload`.
UPLOAD = "upload"


class Guests(StrEnum):
    """What running VMs do while their host restarts."""

    POLICY = "policy"  # each as its own setting says
    SAVE = "save"  # memory goes to disk, and they run on where they were
    SHUTDOWN = "shutdown"


class Reboot(StrEnum):
    KEXEC = "kexec"  # the new kernel at once, without the firmware; the firmware's way where that fails
    FIRMWARE = "firmware"
    NONE = "none"  # the next reboot, whenever it comes, starts it


class OldState(StrEnum):
    """What becomes of the state of an installation that is found on the disk."""

    KEEP = "keep"
    REPLACE = "replace"  # by the running host's


class InstallRequest(In, frozen=True, kw_only=True):
    """`disk`, `mirror`: `serial:…`, `wwn:…`, `/dev/…`, `/dev/disk/by-id/…` or `largest`.

    `image`: empty for the running one, a URL, `upload`, or `datastore/name`. Only `mirror`: joins that disk
    to the installation we run from.
    """

    disk: str = ""
    mirror: str = ""
    erase: bool = False
    image: str = ""
    sha256: str = ""
    state: OldState = OldState.KEEP
    reboot: bool = False


class UpdatePolicy(In, frozen=True, kw_only=True):
    """How this host is updated where a request does not say. `url`: where its updates are."""

    url: str = ""
    vms: Guests = Guests.POLICY
    reboot: Reboot = Reboot.KEXEC


class PolicyChange(In, frozen=True, kw_only=True):
    """Absent fields stay."""

    url: str | UnsetType = UNSET
    vms: Guests | UnsetType = UNSET
    reboot: Reboot | UnsetType = UNSET


class UpdateRequest(In, frozen=True, kw_only=True):
    """`image`: a URL, `upload`, or `datastore/name`. What is absent is as the host's policy says."""

    image: str | UnsetType = UNSET
    sha256: str = ""
    allow_older: bool = False
    vms: Guests | UnsetType = UNSET
    reboot: Reboot | UnsetType = UNSET
    guest_timeout_s: Annotated[float, Meta(ge=0, le=3600)] = 120.0


class RollbackRequest(In, frozen=True, kw_only=True):
    vms: Guests | UnsetType = UNSET
    reboot: Reboot | UnsetType = UNSET
    guest_timeout_s: Annotated[float, Meta(ge=0, le=3600)] = 120.0


class SlotState(StrEnum):
    EMPTY = "empty"
    GOOD = "good"  # has been confirmed
    TRIAL = "trial"  # starts next, or is being tried now
    BAD = "bad"  # was tried and did not get confirmed
    UNFINISHED = "unfinished"  # being written, or that was interrupted


class Slot(Out, frozen=True, kw_only=True):
    slot: str
    state: SlotState
    version: str = ""
    build: str = ""
    number: int = 0  # counts installations: the highest good one starts
    running: bool = False
    tries_left: int | None = None


class BootDevice(Out, frozen=True, kw_only=True):
    """A disk this host can start from. `problem`: why it is not in step, if it is not."""

    disk: str
    booted: bool
    in_step: bool
    problem: str = ""


class OutcomeState(StrEnum):
    PENDING = "pending"
    CONFIRMED = "confirmed"
    FAILED = "failed"


class Outcome(Out, frozen=True, kw_only=True):
    """How the last update or rollback went. Times are seconds since the epoch."""

    kind: str  # `update` or `rollback`
    state: OutcomeState
    slot: str
    version: str
    build: str
    from_version: str
    from_build: str
    begun: float
    ended: float | None = None
    why: str = ""


class Deploy(Out, frozen=True, kw_only=True):
    """What this host was started from, and what it can start from. `medium`: `disk`, `cd`, or empty."""

    firmware: str
    secure_boot: bool
    medium: str
    installed: bool
    build: str
    version: str
    trial: bool
    slots: tuple[Slot, ...] = ()
    devices: tuple[BootDevice, ...] = ()
    mirror: str = "none"  # `none`, `healthy`, `rebuilding`, `degraded`
    last: Outcome | None = None
    policy: UpdatePolicy = UpdatePolicy()


class Uploaded(Out, frozen=True, kw_only=True):
    """An image that waits in memory. `signed_by`: the trusted key it is signed with, or empty."""

    version: str
    build: str
    file_bytes: int
    sha256: str
    signed_by: str


class KeyCreate(In, frozen=True, kw_only=True):
    """`certificate` in PEM. Its dates do not matter: a clock may stand in 1970."""

    name: Name
    certificate: Annotated[str, Meta(max_length=16384)]


class Key(Out, frozen=True, kw_only=True):
    """A certificate whose owner may sign updates. `built_in` ones came with the image."""

    name: str
    fingerprint: str  # SHA-256
    built_in: bool


class KeyList(Listed, frozen=True, kw_only=True):
    keys: tuple[Key, ...]
