"""What the VM core needs of its neighbours below; the real ones are in storage, network and console, the fakes in
the tests. Types only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from thimble.contract.vm import DiskFormat, DiskSpec, NicSpec
from thimble.core.problem import Reason


class VolumeFacts(Protocol):
    @property
    def path(self) -> Path: ...
    @property
    def format(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...


class Port(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def fd(self) -> int: ...
    @property
    def vhost_fd(self) -> int | None: ...


class Storage(Protocol):
    @property
    def default(self) -> str: ...
    def names(self) -> list[str]: ...
    def homes(self) -> dict[str, Path]: ...
    def check_disk(self, spec: DiskSpec, home: str, path: str) -> list[Reason]: ...
    def check_image(self, ref: str, home: str, path: str) -> list[Reason]: ...
    async def create_volume(
        self,
        target: Path,
        *,
        size_bytes: int | None,
        image: str | None,
        home: str,
        format: DiskFormat,
        progress: Callable[[float], None],
    ) -> int: ...
    def remove_volume(self, target: Path) -> None: ...
    def resolve_volume(self, ref: str, home: str) -> VolumeFacts: ...
    def resolve_image(self, ref: str, home: str) -> VolumeFacts: ...


class Network(Protocol):
    def check_nic(self, spec: NicSpec, path: str) -> list[Reason]: ...
    def address_for(self, switch: str, mac: str, taken: set[str]) -> str: ...
    async def open_port(
        self, vm: str, nic: str, *, switch: str, mac: str, ip: str, uid: int, hostname: str
    ) -> Port: ...
    async def close_port(self, vm: str, nic: str) -> None: ...
    async def sync(self) -> None: ...


class Consoles(Protocol):
    async def attach(self, vm_id: str, socket: Path) -> None: ...
    def detach(self, vm_id: str) -> None: ...
    def tail(self, vm_id: str) -> bytes: ...


class Accel(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def why(self) -> str: ...


class PortUse(msgspec.Struct, frozen=True, kw_only=True):
    """A NIC of a VM on a switch: the network's source for DHCP hosts, forwards and port lists."""

    vm_id: str
    vm_name: str
    nic: str
    switch: str
    mac: str
    ip: str


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules want to know of the machine."""

    cpus: int
    memory_bytes: int
    memory_available_bytes: int
    accel: str
    accel_why: str = ""
