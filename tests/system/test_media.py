"""Every medium starts a server, by each firmware that can; under each firmware it runs a guest. With keys of
one's own, the firmware starts what they signed and nothing else.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from benchmarks.thimble_server import extended
from visitor import BOOT_S, start_guest, visit

from thimble.image import cpio, keys, sign, signing
from thimble.image.progress import on_stderr
from thimble.lab import home
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.server import LabServer
from thimble.lab.spec import LabDisk, LabFirmware, LabMedium, LabNic, ServerSpec

pytestmark = [pytest.mark.system, pytest.mark.slow]

NEIGHBOUR = "rdinit=/neighbour.py ip=192.168.66.1:::255.255.255.0 ip=[fd77::1]:::64"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        LabServer.attach(entry.name).down(force=True)


def on_medium(image: Path, medium: LabMedium, firmware: LabFirmware) -> ServerSpec:
    return spec_of_image(image, name="media", memory_mib=3072, medium=medium, firmware=firmware)


def by_tftp(image: Path, firmware: LabFirmware, file: Path) -> ServerSpec:
    nics = (LabNic(forwards=(443,), boot=str(file)),)
    return spec_of_image(
        image, name="media", memory_mib=3072, medium=LabMedium.NONE, firmware=firmware, nics=nics
    )


@pytest.mark.parametrize(
    ("medium", "firmware", "kind", "state_on"),
    [
        (LabMedium.IMG, LabFirmware.UEFI, "disk", "partition"),
        (LabMedium.IMG, LabFirmware.BIOS, "disk", "partition"),
        (LabMedium.ISO, LabFirmware.UEFI, "cd", "ram"),
        (LabMedium.ISO, LabFirmware.BIOS, "cd", "ram"),
        (LabMedium.EFI, LabFirmware.UEFI, "", "ram"),
    ],
)
def test_a_medium_starts_a_server_that_can_run_guests(
    image: Path, medium: LabMedium, firmware: LabFirmware, kind: str, state_on: str
) -> None:
    def run(attempt: int) -> None:
        server = LabServer.up(on_medium(image, medium, firmware))
        try:
            client = visit(server)
            if medium is LabMedium.IMG:  # the others start the same bytes
                start_guest(client)
            host = client.call("host.get")
            assert (host.state, host.accel) == (state_on, "kvm")
            found = client.call("deploy.get")
            assert (found.firmware, found.secure_boot) == (firmware, False)
            assert found.medium == kind
        finally:
            print(server.serial.tail(3000).decode(errors="replace"), server.timeline)
            server.down(force=True)

    with_retries(run)


def test_uefi_starts_the_one_file_from_the_network(image: Path) -> None:
    def run(attempt: int) -> None:
        server = LabServer.up(by_tftp(image, LabFirmware.UEFI, image / "thimble.efi"))
        try:
            assert visit(server).call("host.get").accel == "kvm"
        finally:
            print(server.serial.tail(3000).decode(errors="replace"), server.timeline)
            server.down(force=True)

    with_retries(run)


def test_uefi_starts_the_one_file_over_http(image: Path, tmp_path: Path) -> None:
    """Its DHCP and web server are a second Thimble on the same wire."""
    wire = f"http {tmp_path}"
    initrd = tmp_path / "initrd"
    script = cpio.file("neighbour.py", Path(__file__).with_name("neighbour.py").read_bytes(), 0o755)
    efi = cpio.file("thimble.efi", (image / "thimble.efi").read_bytes())
    initrd.write_bytes(extended((image / "initrd").read_bytes(), [script, efi]))
    plain = spec_of_image(image, name="neighbour", nics=(LabNic(wire=wire),), append=NEIGHBOUR)

    def run(attempt: int) -> None:
        servers = [LabServer.up(msgspec.structs.replace(plain, initrd=str(initrd)))]
        try:
            servers[0].wait_for(b"neighbour: serving", BOOT_S)
            nics = (LabNic(wire=wire, http=True),)
            spec = spec_of_image(
                image,
                name="media",
                medium=LabMedium.NONE,
                firmware=LabFirmware.UEFI,
                nics=nics,
                memory_mib=3072,
            )
            servers.append(server := LabServer.up(spec))
            server.wait_for(b"http://192.168.66.1/thimble.efi", BOOT_S)
            server.wait_for(b"thimble: ready in ", BOOT_S)
        finally:
            for server in servers:
                print(server.serial.tail(3000).decode(errors="replace"), server.timeline)
                server.down(force=True)

    with_retries(run)


def test_ipxe_starts_kernel_and_initrd_from_the_network(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tftp"
    folder.mkdir()
    for name in ("vmlinuz", "initrd"):
        (folder / name).symlink_to(image / name)
    words = spec_of_image(image).append
    script = folder / "boot.ipxe"
    script.write_text(
        f"#!ipxe\nkernel tftp://10.0.2.2/vmlinuz initrd=initrd {words}\ninitrd tftp://10.0.2.2/initrd\nboot\n"
    )

    def run(attempt: int) -> None:
        server = LabServer.up(by_tftp(image, LabFirmware.BIOS, script))
        try:
            assert visit(server).call("host.get").accel == "kvm"
        finally:
            print(server.serial.tail(3000).decode(errors="replace"), server.timeline)
            server.down(force=True)

    with_retries(run)


@pytest.fixture(scope="module")
def signed(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same build, signed with a fresh key."""
    scratch = tmp_path_factory.mktemp("signed")
    keys.make(scratch / "keys", on_stderr)
    folder = scratch / "image"
    shutil.copytree(image, folder, copy_function=os.link)
    for name in ("thimble.efi", "thimble.img", "thimble.iso"):
        (folder / name).unlink()
        (folder / name).touch()
    sign.sign(folder, signing.from_folder(scratch / "keys"), on_stderr)
    return folder


def alter(disk: Path, efi: Path) -> None:
    """Turn one bit of the UKI's RAM root."""
    beginning = efi.read_bytes()[:4096]
    with disk.open("r+b") as handle, mmap.mmap(handle.fileno(), 0) as content:
        content[content.find(beginning) + efi.stat().st_size // 2] ^= 1


def test_a_firmware_takes_the_keys_and_then_starts_only_what_they_signed(
    image: Path, signed: Path, tmp_path: Path
) -> None:
    stick = tmp_path / "stick.img"

    def run(attempt: int) -> None:
        stick.unlink(missing_ok=True)
        stick.write_bytes((signed / "thimble.img").read_bytes())
        plain = spec_of_image(
            signed, name="media", memory_mib=3072, medium=LabMedium.NONE, firmware=LabFirmware.UEFI,
            secure_boot=True, disks=(LabDisk(file=str(stick), order=1),),
        )  # fmt: skip
        server = LabServer.up(plain)
        try:
            the_firmware_learns(server)
            the_cd_starts(server, signed)
            nothing_else_starts(server, plain, image, signed, stick)
        finally:
            print(server.serial.tail(6000).decode(errors="replace"), server.timeline)
            server.down(force=True)

    with_retries(run)


def the_firmware_learns(server: LabServer) -> None:
    server.wait_for(b"Custom Secure Boot keys successfully enrolled", BOOT_S)
    client = visit(server)
    assert client.call("deploy.get").secure_boot
    start_guest(client)
    server.cut_power()


def the_cd_starts(server: LabServer, signed: Path) -> None:
    server.spec = msgspec.structs.replace(
        server.spec, disks=spec_of_image(signed, medium=LabMedium.ISO).disks
    )
    server.power_on()
    server.wait_for(b"thimble: ready in ", BOOT_S)
    server.cut_power()


def nothing_else_starts(server: LabServer, plain: ServerSpec, image: Path, signed: Path, stick: Path) -> None:
    server.spec = plain
    alter(stick, signed / "thimble.efi")
    server.power_on()
    said = server.wait_for(b"ccess denied", BOOT_S)
    assert b"thimble:" not in said
    server.cut_power()

    stick.write_bytes((image / "thimble.img").read_bytes())
    server.power_on()
    said = server.wait_for(b"ccess Denied", BOOT_S)
    assert b"thimble:" not in said
