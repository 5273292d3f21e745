"""What is kept of a saved VM, and whether it can go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some
from vm_examples import EXAMPLES, definition

from thimble.contract.vm import CdromSpec, DiskBus, DiskSpec
from thimble.core.problem import Problem
from thimble.core.units import GIB
from thimble.vm.qemu.saved_file import DAMAGED, StateFile
from thimble.vm.record import cpus, layout, saved_state
from thimble.vm.record.cpus import HostCpu
from thimble.vm.record.saved_state import Saved
from thimble.vm.record.spec import Definition, Running

replace = msgspec.structs.replace
CPU = HostCpu("AuthenticAMD/25/1", ("avx", "avx2"))


def of(vm: Definition, **more: Any) -> Saved:
    running = Running(record=vm, ports=layout.ports(vm), accel="kvm", started=1.0)
    fields = {"machine": "pc-q35-10.0", "cpu": CPU, "goes_on": True, "stays": False, "when": 2.0}
    return Saved(running=running, **(fields | more))


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_written_is_read_and_the_stream_begins_behind_it(name: str, tmp_path: Path) -> None:
    value = of(definition(**EXAMPLES[name]))
    file = StateFile(tmp_path)
    descriptor = file.create(value)
    with open(descriptor, "wb") as writing:
        writing.write(b"the stream")
    assert file.read(file.new) == value
    assert file.commit() == file.path.stat().st_size
    assert file.read() == value
    assert file.path.read_bytes()[file.stream_at() :] == b"the stream"
    assert not file.new.exists()


def test_a_file_that_is_cut_or_not_ours_is_damaged(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    with open(file.create(of(definition())), "wb") as writing:
        writing.write(b"the stream")
    file.commit()
    whole = file.path.read_bytes()
    for damaged in (whole[:-1], whole + b"x", whole[:10], b"", b"something else" * 1000):
        file.path.write_bytes(damaged)
        with pytest.raises(Problem, match=DAMAGED):
            file.read()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    file = StateFile(tmp_path)
    file.path.symlink_to("secret")
    with pytest.raises(Problem):
        file.read()


@given(some.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    found = saved_state.lengths(data)
    assert found is None or found[1] <= saved_state.JSON_MAX
    assert saved_state.read(data) is None


def test_the_same_host_takes_it_back() -> None:
    vm = definition(**EXAMPLES["q35-uefi"])
    assert saved_state.refusal(of(vm), vm, "kvm", CPU) == ""


def test_what_is_another_now_is_told() -> None:
    vm = definition(**EXAMPLES["q35-uefi"])
    other = replace(vm, nics=(replace(vm.nics[0], mac="52:54:00:99:99:99"),))
    assert "kvm" in saved_state.refusal(of(vm), vm, "tcg", CPU)
    assert saved_state.refusal(of(vm), other, "kvm", CPU) == "its devices have changed since"
    assert saved_state.refusal(of(vm, machine="pc-q35-10.0,dumpdtb=x"), vm, "kvm", CPU) == DAMAGED
    assert "another CPU" in saved_state.refusal(of(vm), vm, "kvm", HostCpu("AuthenticAMD/26/2", CPU.flags))
    assert "avx2" in saved_state.refusal(of(vm), vm, "kvm", HostCpu(CPU.model, ("avx",)))


def test_a_baseline_goes_on_on_any_cpu_and_a_model_where_nothing_is_missing() -> None:
    other = HostCpu("GenuineIntel/6/106", ("avx", "avx2", "avx512f"))
    for cpu, cannot in (("x86-64-v3", False), ("EPYC", False), ("host", True)):
        vm = definition(cpu=cpu)
        assert bool(saved_state.refusal(of(vm), vm, "kvm", other)) is cannot
    poor = HostCpu("GenuineIntel/6/44")
    assert saved_state.refusal(of(definition(cpu="EPYC")), definition(cpu="EPYC"), "kvm", poor)


def test_it_goes_on_with_its_records_devices_and_the_properties_it_had() -> None:
    ran = definition(**EXAMPLES["q35-uefi"], memory_mib=1024)
    now = replace(ran, memory_mib=2048, name="renamed", uid=100_007)
    again = saved_state.goes_on_as(of(replace(ran, uid=0)), now)
    assert (again.memory_mib, again.name, again.uid) == (1024, "renamed", 100_007)
    assert (again.machine_type, again.addresses) == ("pc-q35-10.0", ran.addresses)


def test_what_cannot_be_saved_is_told() -> None:
    def blockers(vm: Definition, wanted: Definition | None = None) -> list[str]:
        return [reason.message for reason in saved_state.blockers(of(vm).running, wanted or vm)]

    assert blockers(definition(**EXAMPLES["q35-uefi"])) == []
    assert "microvm" in blockers(definition(**EXAMPLES["microvm"]))[0]
    assert "NVMe" in blockers(definition(disks=(DiskSpec(size_bytes=GIB, bus=DiskBus.NVME),)))[0]
    bare = definition()
    assert "cold start" in blockers(bare, replace(bare, cdroms=definition(cdroms=(CdromSpec(),)).cdroms))[0]


def test_while_saved_only_what_the_guest_does_not_see_may_change() -> None:
    vm = definition(**EXAMPLES["q35-uefi"])
    assert saved_state.change_reasons(vm, replace(vm, name="other")) == []
    assert "vcpus" in saved_state.change_reasons(vm, replace(vm, vcpus=2))[0].message
    assert "devices" in saved_state.change_reasons(vm, replace(vm, nics=()))[0].message


@pytest.mark.parametrize("name", ["pc-q35-10.0", "pc-q35-9.2"])
def test_machine_types_of_qemu_are_sound(name: str) -> None:
    assert saved_state.machine_type_is_sound(name)


@pytest.mark.parametrize("name", ["", "q35", "pc-q35-10", "pc-q35-10.0,x=y", "pc-q35-1.²", "pc-i440fx-9.0"])
def test_others_are_not(name: str) -> None:
    assert not saved_state.machine_type_is_sound(name)


def test_the_hosts_cpu_is_read() -> None:
    text = (
        "vendor_id\t: GenuineIntel\n"
        "cpu family\t: 6\nmodel\t\t: 106\nflags\t\t: fpu avx2 cpuid avx\n\nmodel : 7\n"
    )
    assert cpus.host_cpu(text) == HostCpu("GenuineIntel/6/106", ("avx", "avx2"))
    assert cpus.host_cpu("") == HostCpu("?/?/?")
