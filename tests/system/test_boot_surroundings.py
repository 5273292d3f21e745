"""PID 1 in good and in bad surroundings: media, documents, mirrors, full and locked disks, wrong clocks."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import visitor
from stick import ext4, run, stick, volume

from thimble.cli.demo import after
from thimble.client.http import Client
from thimble.client.trust import Trust
from thimble.contract.host import Host, HostChange, PowerRequest
from thimble.image.progress import on_stderr
from thimble.image.toolbox import ensure
from thimble.lab import home
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.qmp import Qmp
from thimble.lab.server import LabServer
from thimble.lab.spec import LabDisk, LabMedium, LabNic
from thimble.medium import layout
from thimble.sys import raid

BOOT_S = 180.0
#: No sector is written for so long, once the host has settled.
IDLE_S = 90.0


@pytest.fixture(autouse=True)
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        LabServer.attach(entry.name).down(force=True)


def booted(image: Path, story: Callable[[LabServer], None], **spec: Any) -> None:
    """Tells a story on a server; again, if the outer QEMU breaks."""
    changes = {key: spec.pop(key) for key in ("clock", "watchdog") if key in spec}

    def run(_attempt: int) -> None:
        plain = spec_of_image(image, name="place", **{"nics": (LabNic(forwards=(443,)),), **spec})
        server = LabServer.up(msgspec.structs.replace(plain, **changes))
        try:
            story(server)
        finally:
            print(server.serial.tail(4000).decode(errors="replace"))
            server.down(force=True)

    with_retries(run)


def said(server: LabServer, words: bytes) -> None:
    """Wait until the console has said so, before or after other things: much runs side by side."""
    deadline = time.monotonic() + BOOT_S
    while words not in server.serial.tail(1 << 20):
        assert time.monotonic() < deadline, f"the console never said {words!r}"
        time.sleep(0.2)


def signed_in(server: LabServer) -> Client:
    fingerprint = after(server, b"certificate SHA-256 ")
    password = after(server, b"login admin, password ")
    said(server, b"thimble: https://10.0.2.15/")
    client = Client(f"https://127.0.0.1:{server.forward(443)}", trust=Trust(fingerprint=fingerprint))
    client.token = visitor.signed_in(client, password)
    return client


def written(server: LabServer) -> int:
    """Bytes the server wrote to its disks, as QEMU counts them."""
    with Qmp(server.home / "qmp.sock") as qmp:
        stats: Any = qmp.execute("query-blockstats")
    return sum(int(one["stats"]["wr_bytes"]) for one in stats)


def settled(server: LabServer, client: Client) -> Host:
    """What the host says once PID 1 has looked everywhere and nothing was written for five seconds."""
    deadline = time.monotonic() + 120
    before, since = written(server), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.5)
        if (now := written(server)) != before:
            before, since = now, time.monotonic()
        found: Host = client.call("host.get")
        if found.medium_writes is not None and time.monotonic() - since > 5:
            return found
    raise AssertionError(f"the host never comes to rest: {before} bytes, {found.medium_writes}")


def test_an_idle_host_writes_nothing_to_the_medium_it_was_booted_from(image: Path) -> None:
    def story(server: LabServer) -> None:
        said(server, b"thimble: state is on /dev/vda4")
        said(server, b"thimble: ready in ")
        client = signed_in(server)
        host = settled(server, client)
        assert host.state == "partition"
        assert any("local is in RAM" in line for line in host.warnings)
        before = written(server)
        server.mark("idle")
        began = time.monotonic()
        while time.monotonic() - began < IDLE_S:
            assert server.running
            time.sleep(1)
        after_idle: Host = client.call("host.get")
        assert written(server) == before, "somebody writes to the boot medium"
        assert host.medium_writes is not None
        assert after_idle.medium_writes is not None
        assert host.medium_writes.disk == "/dev/vda"
        assert after_idle.medium_writes.since_boot_bytes == host.medium_writes.since_boot_bytes > 0

    booted(image, story, medium=LabMedium.IMG)


DOCUMENT = """\
[management]
address = "10.0.2.99/24"
gateway = "10.0.2.2"
dns = ["10.0.2.3"]
"""


def test_the_document_on_the_medium_sets_the_management_network(image: Path, tmp_path: Path) -> None:
    def story(server: LabServer) -> None:
        said(server, b"thimble: host document found on /dev/vda3 (THIMBLE)")
        said(server, b"thimble: https://10.0.2.99/")

    disk = stick(tmp_path / "stick.raw", DOCUMENT)
    booted(image, story, disks=(LabDisk(file=str(disk)),))


def test_bad_surroundings_all_at_once_leave_a_host_that_says_what_is_wrong(
    image: Path, tmp_path: Path
) -> None:
    """A clock of 1970, a network without DHCP, two documents of which one volume is damaged."""
    damaged = volume(tmp_path / "damaged.raw", DOCUMENT)
    with damaged.open("r+b") as file:
        file.seek(22)
        file.write(bytes(2))  # no FAT any more, but still the boot sector of one
        file.seek(71)
        file.write(b"THIMBLE    ")
        file.seek(66)
        file.write(b"\x29")
    whole = volume(tmp_path / "whole.raw", DOCUMENT, label="OTHER")

    def story(server: LabServer) -> None:
        said(server, b"thimble: ready in ")
        said(server, b"the clock was earlier than the build date of this image and was set to it")
        said(server, b"warning: cannot read the host document on /dev/vda (THIMBLE): ")
        said(server, b"warning: no DHCP server answers on uplink: the host has ")

    disks = (LabDisk(file=str(damaged)), LabDisk(file=str(whole)))
    booted(image, story, disks=disks, clock="1970-01-01T00:00:10", nics=(LabNic(wire="nobody-there"),))


def state_disk(path: Path) -> Path:
    """A disk that is a state partition."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.truncate(32 << 20)
    box = ensure(on_stderr)
    run(box, "mkfs.ext4", "-q", "-F", "-b", "1024", "-m", "0", "-L", layout.STATE, str(path))
    return path


def fill(path: Path) -> None:
    """Put a file there that takes all but some blocks: those that list the file's own."""
    box = ensure(on_stderr)
    said = subprocess.run(box.argv("dumpe2fs", "-h", str(path)), capture_output=True, text=True, check=True)
    free = next(int(line.split()[-1]) for line in said.stdout.splitlines() if line.startswith("Free blocks:"))
    filling = path.with_suffix(".filling")
    filling.write_bytes(b"\1" * (free - 64) * 1024)
    run(box, "debugfs", "-w", "-R", f"write {filling} filling", str(path))


def test_a_full_state_partition_is_told_and_the_host_is_manageable(image: Path, tmp_path: Path) -> None:
    """First one that nobody ever used, then one that a host filled."""
    disk = state_disk(tmp_path / "state.raw")

    def never_used(server: LabServer) -> None:
        said(server, b"STATE IS IN RAM AND WILL BE LOST: cannot mount /dev/vda: ")
        said(server, b"thimble: ready in ")

    def first(server: LabServer) -> None:
        said(server, b"thimble: ready in ")
        client = signed_in(server)
        client.call("host.change", HostChange(name="remembered"))
        client.call("host.shutdown", PowerRequest())
        assert server.wait_off(120)

    def full(server: LabServer) -> None:
        said(server, b"thimble: state is on /dev/vda")
        until_ready = server.wait_for(b"thimble: ready in ", BOOT_S)
        assert b"agent ended" not in until_ready
        said(server, b"warning: the state partition is full")

    fill(disk)
    booted(image, never_used, disks=(LabDisk(file=str(disk)),))
    state_disk(disk)
    booted(image, first, disks=(LabDisk(file=str(disk)),))
    fill(disk)
    booted(image, full, disks=(LabDisk(file=str(disk)),))


def test_a_locked_state_partition_and_two_documents_leave_a_manageable_host(
    image: Path, tmp_path: Path
) -> None:
    """Of the two documents none is used, and both are named."""

    def story(server: LabServer) -> None:
        said(server, b"STATE IS IN RAM AND WILL BE LOST: cannot mount /dev/vda")
        said(server, b"more than one volume is labelled THIMBLE, none of them is used: /dev/vdb, /dev/vdc")
        said(server, b"thimble: ready in ")

    locked = LabDisk(file=str(state_disk(tmp_path / "locked.raw")), read_only=True)
    documents = (LabDisk(file=str(volume(tmp_path / f"{name}.raw", DOCUMENT))) for name in "ab")
    booted(image, story, disks=(locked, *documents))


def mirror_half(path: Path, number: int) -> Path:
    """One disk of an installed host with a mirrored state; both halves are alike but for their numbers."""
    box = ensure(on_stderr)
    parts = layout.partitions(boot_mib=34, state_mib=64, raid=True)
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.truncate(layout.image_bytes(parts))
    run(box, "sfdisk", "--quiet", str(path), given=layout.script(parts))
    state = next(part for part in parts if part.name == layout.STATE)
    inner = msgspec.structs.replace(
        state, start=state.start + raid.DATA_OFFSET, size=state.size - raid.DATA_OFFSET
    )
    ext4(box, path, inner, uuid="11111111-2222-3333-4444-555555555555")
    block = raid.superblock(
        b"\7" * 16, bytes([number]) * 16, data_bytes=inner.size, members=2, number=number, roles={0: 0, 1: 1},
        events=1,
    )  # fmt: skip
    with path.open("r+b") as file:
        file.seek(state.start + 4096)
        file.write(block)
    return path


def test_a_mirrored_state_starts_whole_and_with_one_half(image: Path, tmp_path: Path) -> None:
    halves = [LabDisk(file=str(mirror_half(tmp_path / f"{number}.raw", number))) for number in (0, 1)]

    def whole(server: LabServer) -> None:
        before = server.wait_for(b"thimble: state is on /dev/md_state", BOOT_S)
        assert b"warning" not in before
        said(server, b"thimble: ready in ")

    def half(server: LabServer) -> None:
        said(server, b"warning: the mirror is degraded: /dev/vda4 runs with 1 of 2 disks")
        said(server, b"thimble: state is on /dev/md_state")
        said(server, b"thimble: ready in ")

    def again(server: LabServer) -> None:
        said(server, b"warning: the mirror /dev/vda4 is out of sync and is being resynchronised")
        said(server, b"thimble: ready in ")

    booted(image, whole, disks=tuple(halves))
    booted(image, half, disks=(halves[1],))
    booted(image, again, disks=tuple(halves))


def test_an_image_on_trial_that_nobody_confirms_is_given_up(image: Path) -> None:
    def story(server: LabServer) -> None:
        said(server, b"thimble: trial boot of this image")
        said(server, b"thimble: the trial boot was not confirmed within ")
        said(server, b"thimble: rebooting")

    append = "thimble.slot=b thimble.trial=1 thimble.trial_timeout=1"
    booted(image, story, append=append, watchdog=True)
