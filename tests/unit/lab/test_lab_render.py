"""The command line of each kind of server is its golden file's.

THIMBLE_GOLDEN=write renews them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from thimble.lab import render
from thimble.lab.render import LabAccel, Tools
from thimble.lab.spec import STATE_LABEL, Bus, LabDisk, LabFirmware, LabNic, ServerSpec

GOLDEN = Path(__file__).parent / "golden"
TOOLS = Tools(qemu=("qemu-system-x86_64",), ovmf_code="/ovmf/code.fd", ovmf_vars="/ovmf/vars.fd")
TCG = LabAccel("tcg", "")
KVM = LabAccel("kvm", "")

SECURE = Tools(
    qemu=("qemu-system-x86_64",),
    ovmf_code="/ovmf/code.fd",
    ovmf_vars="/ovmf/vars.fd",
    ovmf_secure="/ovmf/secure.fd",
)

CASES = {
    "secure-cd": (
        ServerSpec(
            name="four",
            firmware=LabFirmware.UEFI,
            secure_boot=True,
            disks=(
                LabDisk(file="/m/thimble.iso", bus=Bus.AHCI, cd=True, read_only=True, order=1),
                LabDisk(file="/m/thimble.img", keep=True, order=2),
            ),
            nics=(),
        ),
        TCG,
    ),
    "bios-usb-and-net": (
        ServerSpec(
            name="five",
            firmware=LabFirmware.BIOS,
            disks=(
                LabDisk(file="/m/thimble.img", bus=Bus.USB, keep=True, order=1),
                LabDisk(file="/m/thimble.iso", bus=Bus.USB, cd=True, read_only=True),
            ),
            nics=(LabNic(boot="/tftp/boot.ipxe"),),
        ),
        TCG,
    ),
    "direct": (
        ServerSpec(name="one", kernel="/image/vmlinuz", initrd="/image/initrd", append="quiet console=ttyS0"),
        TCG,
    ),
    "uefi-with-disks": (
        ServerSpec(
            name="two",
            cpus=4,
            memory_mib=4096,
            firmware=LabFirmware.UEFI,
            efi="/image/thimble.efi",
            disks=(
                LabDisk(size_bytes=1 << 33, label=STATE_LABEL),
                LabDisk(size_bytes=1 << 30, bus=Bus.NVME),
                LabDisk(file="/disks/a,b.qcow2", format="qcow2", bus=Bus.AHCI, read_only=True),
            ),
            nics=(LabNic(forwards=(443, 22)), LabNic(wire="blue", model="e1000e")),
            oem_strings=("io.systemd.credential:a=b,c",),
            display=True,
        ),
        KVM,
    ),
    "bios": (
        ServerSpec(
            name="three", firmware=LabFirmware.BIOS, disks=(LabDisk(file="/d.raw"),), nested=False, nics=()
        ),
        TCG,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_command_line_is_the_golden_one(name: str) -> None:
    spec, accel = CASES[name]
    text = "\n".join(render.argv(spec, SECURE if spec.secure_boot else TOOLS, accel)) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("THIMBLE_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def test_kvm_is_used_only_when_the_processor_truly_has_it() -> None:
    amd, intel, none = (
        "flags\t\t: fpu svm npt\n",
        "flags\t\t: fpu vmx\n",
        "flags\t\t: fpu svm_lock hypervisor\n",
    )
    assert render.accel(kvm_opens=True, cpuinfo=amd).name == "kvm"
    assert render.accel(kvm_opens=True, cpuinfo=intel).name == "kvm"
    assert render.accel(kvm_opens=True, cpuinfo=none).name == "tcg"
    assert render.accel(kvm_opens=False, cpuinfo=amd).name == "tcg"
    assert render.accel(kvm_opens=True, cpuinfo="").name == "tcg"


def test_two_servers_never_share_a_hardware_address() -> None:
    addresses = {render.mac_of(server, port) for server in ("a", "b", "c") for port in range(4)}
    assert len(addresses) == 12
    assert all(address.startswith("52:54:00:") and len(address) == 17 for address in addresses)


def test_a_wire_has_the_same_port_wherever_it_is_named() -> None:
    assert render.wire_port("blue") == render.wire_port("blue") != render.wire_port("red")
    assert 20000 <= render.wire_port("blue") < 40000
