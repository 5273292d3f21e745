"""The guests' pure parts: the archive the kernel unpacks, the initrds, the overlay, the lock."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

from thimble.guest import cloud, initrd, overlay, packages
from thimble.image import cpio, locking

MODULES = {name: f"module {name}".encode() for name in initrd.TINY_MODULES}


def names(archive: bytes) -> list[str]:
    """The entries as an independent reader of the format finds them."""
    found: list[str] = []
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = archive[at + 110 : at + 110 + fields[11] - 1].decode()
        if name == "TRAILER!!!":
            return found
        found.append(name)
        at += (110 + fields[11] + 3) // 4 * 4
        at += (fields[6] + 3) // 4 * 4


def test_every_entry_comes_after_its_directory() -> None:
    archive = cpio.archive(
        [cpio.file("a/b/c", b"12345"), cpio.link("a/l", "b"), cpio.file("init", b"x", 0o755)]
    )
    assert names(archive) == ["a", "a/b", "a/b/c", "a/l", "init"]
    assert len(archive) % 512 == 0


def test_the_same_entries_give_the_same_bytes() -> None:
    entries = [cpio.file("b", b"2"), cpio.file("a", b"1")]
    assert cpio.archive(entries) == cpio.archive(list(reversed(entries)))


def test_a_tiny_guest_has_a_program_to_start_and_a_console() -> None:
    entries = {entry.path: entry for entry in initrd.tiny(b"busybox", MODULES)}
    assert entries["init"].mode == stat.S_IFREG | 0o755
    assert entries["dev/console"].device == (5, 1)
    first_output = next(
        line for line in entries["init"].data.decode().splitlines() if line.startswith("echo")
    )
    assert first_output == 'echo "tiny guest: up"'


def test_scripts_are_what_a_shell_can_read(tmp_path: Path) -> None:
    for text in (initrd.TINY_INIT, initrd.DEBIAN_INIT, initrd.DHCP, initrd.POWER_BUTTON):
        assert text.startswith("#!/bin/busybox sh\n")
        subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def test_no_unit_is_both_masked_and_given() -> None:
    for laid in (overlay.DEBIAN, cloud.RECIPE.laid):
        assert not set(laid.files) & set(laid.links)
        for path in laid.files:
            unit = path.removesuffix("/after-ssh.conf").removesuffix(".d").rsplit("/", 1)[-1]
            assert unit not in overlay.MASKED_UNITS, path


def test_what_is_late_never_blocks_what_sshd_waits_for() -> None:
    assert not {"systemd-networkd.service", "systemd-udevd.service", "ssh.service"} & set(overlay.LATE_UNITS)
    assert "network" not in overlay.SSH_FIRST.split("[Service]")[0]


def test_every_set_of_the_lock_is_pinned_and_apart() -> None:
    lock = locking.read(packages.LOCK_FILE.read_text())
    base, debian, more, parts = (set(lock.named(name)) for name in ("base", "debian", "cloud", "parts"))
    assert base and debian and more
    assert not (base & debian or base & more or debian & more)
    assert {"openssh-server", "systemd", "udev"} <= {pin.name for pin in debian}
    assert [pin.name.startswith(packages.KERNEL) or pin.name == packages.BUSYBOX for pin in parts] == [
        True,
        True,
    ]
