"""Guests that find their own way: from disk and CD under SeaBIOS, from an EFI system partition under OVMF."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from thimble.client.http import Client
from thimble.contract.vm import CdromSpec, DiskFormat, DiskSpec, Firmware, VmCreate
from thimble.guest.tiny import TinyGuest
from thimble.image import toolbox
from thimble.image.toolbox import Toolbox
from thimble.lab import disks

SPOKEN = b"a boot sector speaks"

#: cli; ds = 0; si = message; each byte to COM1; then halt for ever. Loaded at 0x7c00 from disk and CD alike.
SPEAK = bytes.fromhex("fa 31c0 8ed8 be 197c ba f803 ac 08c0 7403 ee ebf8 f4 ebfd".replace(" ", ""))


def boot_sector() -> bytes:
    code = SPEAK.ljust(0x19, b"\0") + SPOKEN + b"\r\n\0"
    return code.ljust(510, b"\0") + b"\x55\xaa"


@pytest.fixture(scope="session")
def box() -> Toolbox:
    return toolbox.ensure()


def upload(client: Client, name: str, path: Path) -> None:
    with path.open("rb") as content:
        client.upload("image.upload", content, path.stat().st_size, path={"image": name})


def says(client: Client, vm: VmCreate, wanted: bytes, timeout: float = 120) -> None:
    """Create and start `vm`, and read its console until `wanted`."""
    client.finish(client.call("vm.create", vm), timeout=60)
    client.finish(client.call("vm.start", path={"vm": vm.name}), timeout=60)
    seen, deadline = b"", time.monotonic() + timeout
    with client.console(vm.name) as line:
        while wanted not in seen:
            left = deadline - time.monotonic()
            assert left > 0, f"the console did not say {wanted!r}: {seen[-500:]!r}"
            piece = line.recv(timeout=left)
            seen += piece if isinstance(piece, bytes) else piece.encode()


@pytest.mark.usefixtures("no_vms")
def test_a_disk_boots_under_bios(client: Client, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(boot_sector().ljust(1 << 20, b"\0"))
    upload(client, "bios.raw", disk)
    vm = VmCreate(
        name="bios",
        memory_mib=64,
        firmware=Firmware.BIOS,
        disks=(DiskSpec(image="bios.raw", format=DiskFormat.RAW),),
    )
    says(client, vm, SPOKEN)


@pytest.mark.usefixtures("no_vms")
def test_a_cd_boots_under_bios(client: Client, tmp_path: Path, box: Toolbox) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "boot.bin").write_bytes(boot_sector().ljust(2048, b"\0"))
    made = tmp_path / "cd.iso"
    command = [
        "-as",
        "mkisofs",
        "-quiet",
        "-b",
        "boot.bin",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
        "-o",
        str(made),
    ]
    subprocess.run(box.argv("xorriso", *command, str(tree)), check=True, capture_output=True)
    upload(client, "cd.iso", made)
    vm = VmCreate(name="cd", memory_mib=64, firmware=Firmware.BIOS, cdroms=(CdromSpec(image="cd.iso"),))
    says(client, vm, SPOKEN)


@pytest.mark.usefixtures("no_vms")
def test_a_system_partition_boots_under_uefi(
    client: Client, tmp_path: Path, box: Toolbox, guest: TinyGuest
) -> None:
    program = tmp_path / "tiny.efi"
    stub = box.path("usr/lib/systemd/boot/efi/linuxx64.efi.stub")
    words = [
        f"--linux={guest.kernel}",
        f"--initrd={guest.initrd}",
        f"--cmdline={guest.cmdline}",
        f"--stub={stub}",
    ]
    subprocess.run(
        box.argv("ukify", "build", *words, "--efi-arch=x64", f"--output={program}"),
        check=True,
        capture_output=True,
    )
    disks.system_partition(tmp_path / "esp.raw", program, box)
    upload(client, "esp.raw", tmp_path / "esp.raw")
    vm = VmCreate(name="uefi", memory_mib=256, disks=(DiskSpec(image="esp.raw"),))
    says(client, vm, b"tiny guest: up")
