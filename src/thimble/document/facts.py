"""What `plan` and `export` know of the host, as values. Pure; `gather` looks them up."""

from __future__ import annotations

import msgspec

from thimble.contract.deploy import UpdatePolicy
from thimble.contract.document import Document, TokenEntry, UserEntry
from thimble.contract.management import ManagementSettings
from thimble.contract.vm import PowerState
from thimble.network.records import SwitchRecord
from thimble.storage.contents import Contents
from thimble.storage.records import DatastoreRecord
from thimble.sys.disks import Disk
from thimble.vm.record.spec import Running, VmRecord


class VmFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`home`: its datastore. `running`: what its QEMU was started as; None when none runs.

    `pending`: what waits for its next cold start already, in words.
    """

    home: str
    record: VmRecord
    state: PowerState
    running: Running | None = None
    pending: tuple[str, ...] = ()


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A device that a document names, and what lies on it. `erasable`: [install] allows that to be lost."""

    device: str
    contents: Contents = Contents()
    erasable: bool = False


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """`devices`: by what the document calls them. `stores`: disk datastores → the disk they are on.

    `links`: MAC → link. Entries of users have no password hash while that is the one made at first boot.
    """

    name: str
    managed: bool
    syslog: str = ""
    users: tuple[UserEntry, ...] = ()
    tokens: tuple[TokenEntry, ...] = ()
    management: ManagementSettings = ManagementSettings()
    asked: bool = False  # somebody set the management network
    default: str = "local"  # the datastore for whatever names none
    datastores: dict[str, DatastoreRecord] = {}
    devices: dict[str, DeviceFacts] = {}
    stores: dict[str, Disk] = {}
    switches: dict[str, SwitchRecord] = {}
    links: dict[str, str] = {}
    vms: tuple[VmFacts, ...] = ()
    keys: tuple[str, ...] | None = None  # certificates whose updates are accepted; None: none are kept here
    own_keys: tuple[str, ...] = ()  # those of them that did not come with the image
    policy: UpdatePolicy = UpdatePolicy()
    last: Document | None = None  # the one applied last: what only a document says comes from there
