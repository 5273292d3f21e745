"""What `plan` and `export` know of the host, as values. Pure; `gather` looks them up."""

from __future__ import annotations

import msgspec

from thimble.contract.document import TokenEntry, UserEntry
from thimble.contract.management import ManagementSettings
from thimble.contract.vm import PowerState
from thimble.network.records import SwitchRecord
from thimble.storage.contents import Contents
from thimble.storage.records import DatastoreRecord
from thimble.sys.disks import Disk
from thimble.vm.spec import Running, VmRecord


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
    """`devices`: by what the document calls them, and those of disk datastores by name as `datastore NAME`.

    `links`: MAC → link. `passwords` of users are in their entries; one made at first boot and not used yet is
    None.
    """

    name: str
    managed: bool
    users: tuple[UserEntry, ...] = ()
    tokens: tuple[TokenEntry, ...] = ()
    management: ManagementSettings = ManagementSettings()
    asked: bool = False  # somebody set the management network
    datastores: dict[str, DatastoreRecord] = {}
    devices: dict[str, DeviceFacts] = {}
    disks: tuple[Disk, ...] = ()
    switches: dict[str, SwitchRecord] = {}
    links: dict[str, str] = {}
    vms: tuple[VmFacts, ...] = ()
    keys: tuple[str, ...] | None = None  # certificates that updates are trusted by; None: not kept here
