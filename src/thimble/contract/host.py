"""The host itself, sessions, users and tokens on the wire."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, field

from thimble.contract.common import In, Listed, Out, Secret, Task
from thimble.contract.vm import HostShutdown


class Role(StrEnum):
    """Each may do all that the next may do."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


class MediumWrites(Out, frozen=True, kw_only=True):
    """Bytes written to the disk the host was booted from, by anybody."""

    disk: str
    since_boot_bytes: int
    last_hour_bytes: int


class Pressure(Out, frozen=True, kw_only=True):
    """Percent of the last 10, 60 and 300 s in which somebody (`some`) or everybody (`full`) had to wait."""

    some: tuple[float, float, float]
    full: tuple[float, float, float]


class Host(Out, frozen=True, kw_only=True):
    """The host as it is. Bytes and seconds; `ready_s` is from kernel start (hosted: from process start)."""

    name: str
    version: str
    hosted: bool
    accel: str  # `kvm` or `tcg`
    accel_why: str  # why not KVM
    kernel: str
    qemu: str
    cpus: int
    cpu_model: str
    memory_bytes: int
    memory_available_bytes: int
    uptime_s: float
    ready_s: float
    load: tuple[float, float, float]
    addresses: tuple[str, ...]
    state: str  # `partition`, `directory` or `ram`
    state_where: str
    warnings: tuple[str, ...]
    vms: int
    vms_running: int
    certificate_sha256: str
    medium_writes: MediumWrites | None = None  # None: no disk was booted from, or hosted
    health: str = ""  # ok, warning, critical; empty until it was looked at
    pressure: dict[str, Pressure] = field(default_factory=dict)  # cpu, memory, io: the kernel's PSI
    syslog: str = ""  # where the log goes to


class HostChange(In, frozen=True, kw_only=True):
    """`syslog`: `udp://ADDRESS[:514]` or `tcp://ADDRESS[:514]`, or empty for none."""

    name: str | UnsetType = UNSET
    syslog: Annotated[str, Meta(max_length=300)] | UnsetType = UNSET


class Blink(In, frozen=True, kw_only=True):
    """A network port by its MAC or the kernel's name, or a disk by `serial:…`, `wwn:…` or device."""

    what: str
    seconds: Annotated[float, Meta(ge=1, le=600)] = 15.0


class PowerRequest(In, frozen=True, kw_only=True):
    """First the guests: each VM as its `host_shutdown` says, or all as `guests`. Those that are asked to shut
    down get `guest_timeout_s` to obey before they are killed.
    """

    guest_timeout_s: Annotated[float, Meta(ge=0, le=3600)] = 120.0
    guests: HostShutdown | None = None


class HostLog(Out, frozen=True, kw_only=True):
    lines: tuple[str, ...]


class Login(In, frozen=True, kw_only=True):
    user: str
    password: Annotated[str, Secret]


class Session(Out, frozen=True, kw_only=True):
    """`token` goes into `Authorization: Bearer …`; `expires` is seconds since the epoch."""

    token: Annotated[str, Secret]
    user: str
    role: Role
    expires: float


class Ticket(Out, frozen=True, kw_only=True):
    """Opens one WebSocket within seconds: `?ticket=…`, for browsers, which cannot send headers there."""

    ticket: Annotated[str, Secret]
    expires: float


class PasswordChange(In, frozen=True, kw_only=True):
    old: Annotated[str, Secret]
    new: Annotated[str, Meta(min_length=8, max_length=1024), Secret]


#: As `thimble user hash` makes it: scrypt (RFC 7914) with log2 N, r, p, salt and hash. A weaker one would be
#: hashed anew at its first use, and so drift away from what was asked.
PasswordHash = Annotated[
    str,
    Meta(pattern=r"^scrypt\$1[4-7]\$8\$[1-4]\$([0-9a-f]{2}){8,64}\$[0-9a-f]{64}$", max_length=240),
    Secret,
]
#: Of a token; whoever has it cannot sign in with it, but it is nobody else's business.
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$"), Secret]


class UserCreate(In, frozen=True, kw_only=True):
    """With a password, or with the hash of one."""

    name: str
    password: Annotated[str, Meta(min_length=8, max_length=1024), Secret] | UnsetType = UNSET
    password_hash: PasswordHash | UnsetType = UNSET
    role: Role = Role.VIEWER


class UserChange(In, frozen=True, kw_only=True):
    password: Annotated[str, Meta(min_length=8, max_length=1024), Secret] | UnsetType = UNSET
    password_hash: PasswordHash | UnsetType = UNSET
    role: Role | UnsetType = UNSET


class User(Out, frozen=True, kw_only=True):
    name: str
    rev: int
    role: Role


class UserList(Listed, frozen=True, kw_only=True):
    users: tuple[User, ...]


class TokenCreate(In, frozen=True, kw_only=True):
    """A token for a program; `expires_s` from now, at most ten years. Shown once.

    With `sha256`, the digest of a token somebody else made: then it is not told, and it may be another
    `user`'s. `expires` (seconds since the epoch) wins over `expires_s`.
    """

    name: str
    role: Role = Role.VIEWER
    expires_s: Annotated[float, Meta(gt=0, le=315_360_000)] = 31_536_000.0
    expires: float | UnsetType = UNSET
    sha256: Sha256 | UnsetType = UNSET
    user: str | UnsetType = UNSET  # the caller


class Token(Out, frozen=True, kw_only=True):
    id: str
    name: str
    user: str
    role: Role
    expires: float


class TokenList(Listed, frozen=True, kw_only=True):
    tokens: tuple[Token, ...]


class TaskList(Listed, frozen=True, kw_only=True):
    tasks: tuple[Task, ...]
