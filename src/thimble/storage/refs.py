"""How volumes and images are named: `datastore/name`, or a bare name in the datastore at hand. Pure.

A disk in a VM's directory is the volume `datastore/vm-7k3m9q2d.disk0`; no volume of its own may be called so.
"""

from __future__ import annotations

import msgspec


class Ref(msgspec.Struct, frozen=True):
    """A whole reference; `str` writes it as clients do."""

    datastore: str
    name: str

    def __str__(self) -> str:
        return f"{self.datastore}/{self.name}"

    @property
    def vm_disk(self) -> tuple[str, str] | None:
        """(VM id, disk) when it has the form of a disk in a VM's directory."""
        vm, dot, disk = self.name.partition(".")
        return (vm, disk) if dot and vm.startswith("vm-") else None


def parse(text: str, home: str) -> Ref:
    """`home`: the datastore of a bare name."""
    datastore, slash, name = text.partition("/")
    return Ref(datastore, name) if slash else Ref(home, text)


def volume(datastore: str, vm: str, name: str) -> Ref:
    """Of the volume `name`; `vm`: the VM in whose directory it lies, empty for a volume of its own."""
    return Ref(datastore, f"{vm}.{name}" if vm else name)
