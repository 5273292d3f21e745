"""The host document `thimble.toml`: what a host is, as a person writes it.

Its JSON Schema is made from these types, and so are its errors. Secrets are in it only as hashes. Not
imported on the way to "ready".
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from thimble.contract.common import In
from thimble.contract.deploy import UpdatePolicy
from thimble.contract.host import PasswordHash, Role, Sha256
from thimble.contract.management import ManagementNet
from thimble.contract.network import SwitchCreate
from thimble.contract.storage import DatastoreCreate
from thimble.contract.vm import Intent, VmSpec


class HostEntry(In, frozen=True, kw_only=True):
    name: str


class TimeEntry(In, frozen=True, kw_only=True):
    """NTP servers, by name or address."""

    servers: tuple[str, ...]


class LogEntry(In, frozen=True, kw_only=True):
    """`syslog`: where the log goes besides RAM, `udp://ADDRESS[:514]` or `tcp://…`; empty: nowhere."""

    syslog: str = ""


class UserEntry(In, frozen=True, kw_only=True):
    """Somebody who may sign in. Without `password_hash` a user who exists keeps the password."""

    name: str
    role: Role = Role.VIEWER
    password_hash: PasswordHash | None = None


class TokenEntry(In, frozen=True, kw_only=True):
    """A program that may sign in: `sha256` is the digest of its token."""

    name: str
    user: str
    role: Role = Role.VIEWER
    sha256: Sha256
    expires: Annotated[datetime, Meta(tz=True)]


class UpdateEntry(UpdatePolicy, frozen=True, kw_only=True):
    """How this host is updated. `trust`: certificates (PEM) whose signature on an update is accepted."""

    trust: tuple[str, ...] = ()


class InstallEntry(In, frozen=True, kw_only=True):
    """Onto which disk the host installs itself, and which disks may be erased, here or for a datastore.

    A disk is `serial:…`, `wwn:…` or a path below /dev; `disk` and `mirror` may also be `largest`. `reboot`:
    from the disk, when it is installed.
    """

    disk: str = ""
    mirror: str = ""
    erase: tuple[str, ...] = ()
    reboot: bool = False


class VmEntry(VmSpec, frozen=True, kw_only=True):
    """A VM. One that is `running` also starts with the host, unless `autostart` says otherwise."""

    state: Intent = Intent.RUNNING


class Document(In, frozen=True, kw_only=True):
    """All of it. What is left out stays as it is on the host."""

    format: Literal[1]
    host: HostEntry | None = None
    management: ManagementNet | None = None
    time: TimeEntry | None = None
    log: LogEntry | None = None
    user: tuple[UserEntry, ...] = ()
    token: tuple[TokenEntry, ...] = ()
    update: UpdateEntry | None = None
    install: InstallEntry | None = None
    datastore: tuple[DatastoreCreate, ...] = ()
    switch: tuple[SwitchCreate, ...] = ()
    vm: tuple[VmEntry, ...] = ()
