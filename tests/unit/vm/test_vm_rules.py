"""What is refused, and where it says the fault is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from vm_examples import DIRECT, EXAMPLES, HOST, spec

from thimble.contract.vm import CdromSpec, DiskBus, DiskSpec, Firmware, Machine, NicSpec, SeedSpec, VmCreate
from thimble.core.units import GIB
from thimble.vm.record import rules

DISK = DiskSpec(size_bytes=GIB)


@pytest.mark.parametrize("name", EXAMPLES)
def test_good_ones_pass(name: str) -> None:
    assert rules.check(spec(**EXAMPLES[name]), HOST) == []


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"name": "Web 1"}, "$.name"),
        ({"vcpus": 9}, "$.vcpus"),
        ({"memory_mib": 16385}, "$.memory_mib"),
        ({"memory_mib": 32}, "$.memory_mib"),
        ({"cpu": "pentium9"}, "$.cpu"),
        ({"cpu": "EPYC-v77"}, "$.cpu"),
        ({"direct": DIRECT}, "$.firmware"),
        ({"firmware": Firmware.DIRECT}, "$.direct"),
        (
            {"firmware": Firmware.DIRECT, "direct": msgspec.structs.replace(DIRECT, cmdline="a\nb")},
            "$.direct.cmdline",
        ),
        ({"machine": Machine.MICROVM}, "$.firmware"),
        (
            {"machine": Machine.MICROVM, "firmware": "direct", "direct": DIRECT, "cdroms": (CdromSpec(),)},
            "$.cdroms",
        ),
        ({"disks": (DISK,) * 17}, "$.disks"),
        ({"disks": (DiskSpec(name="a", size_bytes=1), DiskSpec(name="a", size_bytes=1))}, "$.disks[1].name"),
        ({"disks": (DiskSpec(volume="x"), DiskSpec(volume="x"))}, "$.disks[1].volume"),
        ({"disks": (DiskSpec(size_bytes=1, read_only=True),)}, "$.disks[0].read_only"),
        ({"disks": (DiskSpec(volume="x", bus=DiskBus.SATA, read_only=True),)}, "$.disks[0].bus"),
        ({"nics": (NicSpec(switch="nat", mac="hello"),)}, "$.nics[0].mac"),
        ({"nics": (NicSpec(switch="nat", mac="01:00:00:00:00:00"),)}, "$.nics[0].mac"),
        ({"nics": (NicSpec(switch="a", mac="52:54:00:0:0:0"),)}, "$.nics[0].mac"),
        ({"seed": SeedSpec(user="Root!")}, "$.seed.user"),
        ({"seed": SeedSpec(ssh_keys=("nokey",))}, "$.seed.ssh_keys[0]"),
        ({"seed": SeedSpec(password_hash="secret")}, "$.seed.password_hash"),
        ({"seed": SeedSpec(address="10.0.0.5")}, "$.seed.address"),
        ({"seed": SeedSpec(gateway="10.0.0.1")}, "$.seed.gateway"),
        ({"seed": SeedSpec(dns=("nowhere",))}, "$.seed.dns[0]"),
    ],
)
def test_bad_ones_are_refused_where_they_are_bad(fields: dict[str, Any], path: str) -> None:
    given = rules.normalise(VmCreate(**({"name": "web1"} | fields)), "local")
    assert path in {reason.path for reason in rules.check(given, HOST)}


def test_all_faults_are_told_at_once() -> None:
    reasons = rules.check(spec("BAD", vcpus=200, cpu="none", nics=(NicSpec(switch="a", mac="x"),)), HOST)
    assert {reason.path for reason in reasons} == {"$.name", "$.vcpus", "$.cpu", "$.nics[0].mac"}


def test_avx512_cannot_be_emulated() -> None:
    tcg = msgspec.structs.replace(HOST, accel="tcg")
    assert rules.check(spec(cpu="x86-64-v4"), HOST) == []
    assert [reason.code for reason in rules.check(spec(cpu="x86-64-v4"), tcg)] == ["unsupported"]


def test_names_are_given_and_given_names_kept() -> None:
    named = spec(disks=(DISK, DiskSpec(name="disk0", size_bytes=1), DISK)).disks
    assert [disk.name for disk in named] == ["disk1", "disk0", "disk2"]


def test_normalising_twice_is_normalising_once() -> None:
    for fields in EXAMPLES.values():
        assert rules.normalise(spec(**fields), "other") == spec(**fields)
