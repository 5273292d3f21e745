"""Looks up what `plan` and `export` have to know of the host. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from thimble.contract.call import Call
from thimble.contract.deploy import UpdatePolicy
from thimble.contract.document import Document, TokenEntry, UserEntry
from thimble.contract.storage import DatastoreKind
from thimble.core.problem import Problem
from thimble.dispatch.registry import Registry
from thimble.document.facts import DeviceFacts, Facts, VmFacts
from thimble.host.management import ManagementService
from thimble.network.service import Network
from thimble.storage import disks as storage_disks
from thimble.storage.service import Storage
from thimble.sys import disks, hostnet
from thimble.vm.service import Vms

Accounts = Callable[[], tuple[tuple[UserEntry, ...], tuple[TokenEntry, ...]]]


class Sources:
    """Where the facts are. `accounts`: users and tokens."""

    def __init__(
        self,
        *,
        registry: Registry,
        storage: Storage,
        network: Network,
        vms: Vms,
        accounts: Accounts,
        name: Callable[[], str],
        managed: Callable[[], bool],
    ) -> None:
        self.registry = registry
        self.vms = vms
        self._storage = storage
        self._network = network
        self._accounts = accounts
        self._name = name
        self._managed = managed

    async def facts(self, document: Document | None, last: Document | None = None) -> Facts:
        """`document`: the one that is planned, whose disks are looked at; `last`: the one applied last."""
        found = await asyncio.to_thread(disks.all_disks)
        users, tokens = self._accounts()
        keys, own = await self._keys()
        stores = self._storage.datastores
        management: ManagementService = self.registry.service("management")
        records = {name: stores.record(name).value for name in stores.names()}
        devices = await asyncio.to_thread(_devices, document, found) if document else {}
        on_disk = {name: r for name, r in records.items() if r.kind is DatastoreKind.DISK}
        return Facts(
            name=self._name(),
            managed=self._managed(),
            syslog=self.registry.service("host").record.syslog,
            users=users,
            tokens=tokens,
            management=management.settings,
            asked=bool(management.records.all()),
            default=self._storage.default,
            datastores=records,
            devices=devices,
            stores=await asyncio.to_thread(_stores, on_disk, found) if on_disk else {},
            switches=self._network.switches(),
            links=hostnet.macs(),
            vms=tuple(self._vms()),
            keys=keys,
            own_keys=own,
            policy=self._policy(),
            last=last,
        )

    def _policy(self) -> UpdatePolicy:
        if "deploy" not in self.registry.nouns:
            return UpdatePolicy()
        policy: UpdatePolicy = self.registry.service("deploy").policy.value
        return policy

    def _vms(self) -> list[VmFacts]:
        return [
            VmFacts(
                home=record.root,
                record=record.value,
                state=driver.status.state,
                running=driver.engine.running,
                pending=driver.status.pending,
            )
            for record in self.vms.table.all()
            if (driver := self.vms.table.drivers.get(record.id)) is not None
        ]

    async def _keys(self) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        """(all certificates that updates are believed by, those that did not come with the image)."""
        if "key" not in self.registry.nouns:
            return None, ()
        service = self.registry.service("key")
        known: dict[str, str] = service.certificates()
        listed = await service.list(Call(input=None))
        own = [known[key.name] for key in listed.keys if not key.built_in]
        return tuple(known.values()), tuple(own)


def _devices(document: Document, found: tuple[disks.Disk, ...]) -> dict[str, DeviceFacts]:
    install = document.install
    erasable = {disks.resolve(text, found) for text in install.erase} if install else set()
    erasable |= {part for disk in found if disk.device in erasable for part in disk.partitions}
    result = {}
    for store in document.datastore:
        device = disks.resolve(store.device, found) if store.device else ""
        if device:
            contents = storage_disks.device_facts(device).contents
            result[store.device] = DeviceFacts(device=device, contents=contents, erasable=device in erasable)
    return result


def _stores(records: Mapping[str, Any], found: tuple[disks.Disk, ...]) -> dict[str, disks.Disk]:
    whole = {disk.device: disk for disk in found}
    result = {}
    for name, record in records.items():
        try:
            disk = whole.get(storage_disks.find_disk(record))
        except Problem:
            continue
        if disk is not None:
            result[name] = disk
    return result
