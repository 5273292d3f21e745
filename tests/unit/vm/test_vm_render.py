"""Command lines against golden files. `THIMBLE_GOLDEN=write` writes them anew: read the difference."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from vm_examples import EXAMPLES, definition

from thimble.contract.vm import DiskFormat, Firmware
from thimble.vm.qemu import render, seed
from thimble.vm.record import layout
from thimble.vm.record.spec import Definition

GOLDEN = Path(__file__).parent / "golden"


def given(vm: Definition, accel: str) -> render.Machinery:
    """Descriptors as `launch_fds` would open them, numbered from 10."""
    keys = ["kvm"] if accel == "kvm" else []
    keys += ["qmp", "serial", "serial.log"] + (["qga"] if vm.guest_agent else [])
    keys += ["firmware.code", "firmware.vars"] if vm.firmware is Firmware.UEFI else []
    keys += ["kernel", "initrd"] if vm.direct else []
    keys += [f"disk-{disk.name}" for disk in vm.disks]
    keys += [f"cd-{cdrom.name}" for cdrom in vm.cdroms if cdrom.image]
    keys += ["seed"] if layout.wants_seed_disk(vm) else []
    names = tuple(seed.credentials(vm.seed, vm.name, "")) if vm.seed else ()
    keys += [f"cred-{name}" for name in names]
    for nic in vm.nics:
        keys += [f"nic-{nic.name}"] + ([f"nic-{nic.name}.vhost"] if accel == "kvm" else [])
    return render.Machinery(
        accel=accel, share=("/usr/share/qemu",), fds={key: n for n, key in enumerate(keys, 10)},
        credentials=names, qboot="/usr/share/qemu/qboot.rom",
    )  # fmt: skip


@pytest.mark.parametrize("accel", ["kvm", "tcg"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_command_line_is_the_golden_one(name: str, accel: str) -> None:
    vm = definition(**EXAMPLES[name])
    text = "\n".join(" ".join(group) for group in render.render(vm, given(vm, accel))) + "\n"
    path = GOLDEN / f"{name}-{accel}.txt"
    if os.environ.get("THIMBLE_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_secret_is_on_the_command_line(name: str) -> None:
    vm = definition(**EXAMPLES[name])
    words = render.argv(["qemu"], render.render(vm, given(vm, "kvm")))
    assert not any("$6$" in word or "ssh-ed25519" in word for word in words)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_descriptor_is_used(name: str) -> None:
    vm = definition(**EXAMPLES[name])
    machinery = given(vm, "kvm")
    words = " ".join(render.argv([], render.render(vm, machinery)))
    for key, number in machinery.fds.items():
        assert any(form in words for form in (f"fd={number},", f"/fd/{number}", f'fd":"{number}"')), key


@pytest.mark.parametrize("read_only", [False, True])
def test_a_qcow2_never_opens_the_backing_file_it_names(read_only: bool) -> None:
    for format in DiskFormat:
        node = render.blockdev("disk-a", "/dev/fdset/1", format, read_only=read_only)
        assert ("backing" in node) == (format is DiskFormat.QCOW2)
        assert node.get("backing") is None
