"""The pure parts: ELF, cpio, drivers, layout, footprint, licences."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from thimble.core.problem import Problem
from thimble.image import cpio, drivers, elf, footprint, layout, sbom
from thimble.image.layout import Component, ImageEntry, Place

DEP = """kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/lib/crc16.ko.xz:
kernel/drivers/net/virtio_net.ko.xz: kernel/net/net-failover.ko.xz
kernel/net/net-failover.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
"""
SOFT = "softdep ext4 pre: crypto-crc32c\n"
ALIAS = "alias crypto-crc32c crc32c_generic\nalias pci:v00001AF4d00001000* virtio_net\n"


def a_kernel() -> drivers.Graph:
    return drivers.graph(DEP, SOFT, ALIAS, "kernel/drivers/virtio/virtio_pci.ko\n")


def test_a_module_brings_what_it_needs_and_what_it_wants_first() -> None:
    names, unknown = drivers.closure(a_kernel(), ["ext4"])
    assert names == ("crc16", "crc32c_generic", "ext4", "jbd2")
    assert unknown == ()


def test_dashes_and_built_in_modules_are_known_and_others_are_named() -> None:
    names, unknown = drivers.closure(a_kernel(), ["net-failover", "virtio-pci", "warp-drive"])
    assert names == ("net_failover",)
    assert unknown == ("warp-drive",)


def test_load_order_puts_every_module_behind_what_it_needs() -> None:
    order = drivers.load_order(a_kernel(), ["ext4"])
    assert order[-1] == "ext4"
    assert set(order) == {"crc16", "crc32c_generic", "ext4", "jbd2"}


def test_a_folder_stands_for_all_its_modules() -> None:
    names, _ = drivers.closure(a_kernel(), ["fs/"])
    assert {"ext4", "jbd2"} <= set(names)


def test_firmware_is_read_from_the_modules_own_words() -> None:
    data = b"\0license=GPL\0firmware=nic/a.bin\0firmware=nic/b.bin\0depends=\0"
    assert drivers.firmware(data) == ("nic/a.bin", "nic/b.bin")


@pytest.mark.parametrize("profile", ["server", "virtual"])
def test_no_driver_is_listed_twice_within_a_profile(profile: str) -> None:
    names = [drivers.plain_name(name) for name in drivers.wanted(profile).modules]
    assert len(names) == len(set(names))


def test_the_libraries_of_a_real_program_are_found() -> None:
    program = shutil.which("tar")
    assert program
    assert "libc.so.6" in elf.needed(Path(program).resolve().read_bytes())


def test_what_is_not_elf_needs_nothing() -> None:
    assert elf.needed(b"#!/bin/sh\n") == ()


def test_a_missing_library_is_an_error_and_not_a_hole() -> None:
    program = shutil.which("tar")
    assert program

    def nothing(name: str) -> bytes:
        raise KeyError(name)

    with pytest.raises(KeyError):
        elf.closure([Path(program).resolve().read_bytes()], nothing)


def test_a_cpio_archive_is_what_cpio_unpacks(tmp_path: Path) -> None:
    members = [
        cpio.CpioEntry(path="etc", mode=stat.S_IFDIR | 0o755),
        cpio.CpioEntry(path="etc/hello", mode=stat.S_IFREG | 0o640, data=b"world"),
        cpio.CpioEntry(path="link", mode=stat.S_IFLNK | 0o777, data=b"etc/hello"),
    ]
    archive = cpio.pack(members, mtime=86400)
    assert len(archive) % 512 == 0
    assert archive == cpio.pack(members, mtime=86400)
    subprocess.run(["cpio", "-i", "-m", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "etc/hello").read_bytes() == b"world"
    assert (tmp_path / "etc/hello").stat().st_mtime == 86400
    assert (tmp_path / "link").is_symlink()


def entry(path: str, data: bytes = b"x", component: Component = Component.SYSTEM) -> ImageEntry:
    return ImageEntry(place=Place.ROOT, path=path, component=component, package="p", data=data)


def test_directories_above_a_file_are_laid_out_too() -> None:
    paths = [item.path for item in layout.complete([entry("lib/a/b")])]
    assert paths == ["lib", "lib/a", "lib/a/b"]


def test_one_path_for_two_files_is_refused() -> None:
    with pytest.raises(Problem, match="listed twice"):
        layout.complete([entry("lib/a"), entry("lib/a", b"y")])


class Archives:
    """One early archive of 100 bytes and one root image of 1000."""

    first = b"m" * 7

    def weights(self, place: Place) -> dict[Component, int]:
        if place is Place.EARLY:
            return {Component.PYTHON: 50}
        return {Component.QEMU: 300, Component.BLOBS: 100}

    def size(self, place: Place) -> int:
        return 100 if place is Place.EARLY else 1000


def test_shares_add_up_and_blobs_are_apart() -> None:
    shares = footprint.components([entry("bin/qemu", component=Component.QEMU)], Archives())
    assert footprint.counted(shares) == 100 + 750
    assert footprint.apart(shares) == 250 + 7
    assert {share.name for share in shares} == {
        Component.PYTHON,
        Component.QEMU,
        Component.BLOBS,
        Component.MICROCODE,
    }


def test_sharing_out_loses_no_byte() -> None:
    parts = footprint.shared_out(100, {Component.QEMU: 1, Component.PYTHON: 1, Component.WEB: 1})
    assert sum(parts.values()) == 100
    assert footprint.shared_out(100, {}) == {}


COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Files: *
License: GPL-2+ and Expat

Files: x
License: GPL-2+ with OpenSSL exception
"""


def test_licences_come_from_the_machine_readable_file_only() -> None:
    assert sbom.licences(COPYRIGHT) == ("GPL-2+", "Expat", "GPL-2+ with OpenSSL exception")
    assert sbom.licences("This package was debianized by …\nLicense: GPL") == ()


def test_names_become_spdx_and_unknown_ones_references() -> None:
    said = sbom.expression(sbom.licences(COPYRIGHT))
    assert said == "GPL-2.0-or-later AND MIT AND LicenseRef-Debian-GPL-2-with-OpenSSL-exception"
    assert sbom.expression(()) == "NOASSERTION"


def test_the_document_lists_every_package_and_defines_every_reference() -> None:
    part = sbom.Part(
        name="a", version="1", licence="LicenseRef-Debian-odd", sha256="0" * 64, purl="pkg:deb/debian/a@1"
    )
    document = sbom.document({"a": part}, "server", 86400)
    assert document["creationInfo"]["created"] == "1970-01-02T00:00:00Z"  # type: ignore[index]
    assert [item["licenseId"] for item in document["hasExtractedLicensingInfos"]] == ["LicenseRef-Debian-odd"]  # type: ignore[attr-defined]
    assert len(document["packages"]) == 1  # type: ignore[arg-type]
