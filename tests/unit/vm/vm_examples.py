"""VMs to test with."""
# ruff: noqa: E501, RUF005

from __future__ import annotations

from typing import Any

from thimble.contract.vm import (
    CdromSpec,
    DirectBoot,
    DiskBus,
    DiskSpec,
    Firmware,
    Machine,
    NicModel,
    NicSpec,
    SeedMethod,
    SeedSpec,
    VmCreate,
)
from thimble.core.units import GIB
from thimble.vm.record import assign, rules
from thimble.vm.record.rules import HostFacts
from thimble.vm.record.spec import Definition, Noted, VmRecord

HOST = HostFacts(cpus=8, memory_bytes=16 * GIB, memory_available_bytes=8 * GIB, accel="kvm")
DIRECT = DirectBoot(kernel="vmlinuz", initrd="initrd", cmdline="console=ttyS0 quiet")
SEED = SeedSpec(ssh_keys=("ssh-ed25519 AAAA me",), password_hash="$6$salt$hash", user="ann")


def entropy(count: int) -> bytes:
    """Not random at all."""
    entropy.calls += 1  # type: ignore[attr-defined]
    return entropy.calls.to_bytes(count, "big")  # type: ignore[attr-defined]


def spec(name: str = "web1", **more: Any) -> VmCreate:
    return rules.normalise(VmCreate(name=name, **more), "local")


def record(name: str = "web1", **more: Any) -> VmRecord:
    entropy.calls = 0  # type: ignore[attr-defined]
    want = spec(name, **more)
    cards = assign.cards(want.nics, None, set(), set(), entropy, lambda switch, mac, taken: "10.0.0.2")
    sizes = {disk.name: disk.size_bytes or 0 for disk in want.disks}
    return assign.created(
        want, uid=100000, now=1.0, entropy=entropy, cards=cards, sizes=sizes, noted=Noted(start=want.start)
    )


def definition(name: str = "web1", **more: Any) -> Definition:
    return record(name, **more).definition


EXAMPLES: dict[str, dict[str, Any]] = {
    "q35-uefi": {"disks": (DiskSpec(size_bytes=GIB),), "nics": (NicSpec(switch="nat"),)},
    "q35-bios": {
        "firmware": Firmware.BIOS, "vcpus": 2, "memory_mib": 2048, "cpu": "x86-64-v2",
        "disks": (DiskSpec(size_bytes=GIB, bus=DiskBus.SATA), DiskSpec(size_bytes=GIB, bus=DiskBus.NVME)),
        "nics": (NicSpec(switch="nat", model=NicModel.E1000E),), "cdroms": (CdromSpec(image="debian.iso"), CdromSpec()),
    },
    "direct": {
        "firmware": Firmware.DIRECT, "direct": DIRECT, "vga": False, "tablet": False,
        "seed": SeedSpec(method=SeedMethod.CREDENTIALS, ssh_keys=("ssh-ed25519 AAAA me",)),
    },
    "microvm": {
        "firmware": Firmware.DIRECT, "direct": DIRECT, "machine": Machine.MICROVM, "guest_agent": False,
        "disks": (DiskSpec(size_bytes=GIB),), "nics": (NicSpec(switch="nat"),), "seed": SEED,
    },
    "many": {
        "disks": tuple(DiskSpec(size_bytes=GIB) for _ in range(5)) + (DiskSpec(name="data", volume="local/data", read_only=True),),
        "nics": (NicSpec(switch="nat"), NicSpec(switch="uplink", mac="52-54-00-AA-BB-CC")), "seed": SEED,
    },
}  # fmt: skip
