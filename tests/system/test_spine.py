"""The whole line on the booted image: a VM made over the API runs under nested KVM, survives the death of the
agent and a reboot of the host: what it had in memory is still there. Another one starts with the host.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from benchmarks.thimble_server import extended
from visitor import signed_in, until

from thimble.cli.demo import after
from thimble.client.http import Client
from thimble.client.trust import Trust
from thimble.contract.host import Host, PowerRequest
from thimble.contract.vm import (
    Autostart,
    DeleteRequest,
    DirectBoot,
    DiskSpec,
    Firmware,
    HostShutdown,
    NicSpec,
    PowerState,
    StopRequest,
    Vm,
    VmCreate,
)
from thimble.guest import tiny
from thimble.image import cpio
from thimble.image.progress import on_stderr
from thimble.lab import home
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.server import LabServer
from thimble.lab.spec import STATE_LABEL, LabDisk, LabNic

BOOT_S = 240.0
KILLER = 7777


@pytest.fixture(autouse=True)
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        LabServer.attach(entry.name).down(force=True)


class Spine:
    """One server and its one VM, through everything that may happen to them."""

    def __init__(self, image: Path, scratch: Path) -> None:
        initrd = scratch / "initrd"
        insider = cpio.file("insider.py", Path(__file__).with_name("insider.py").read_bytes(), 0o755)
        initrd.write_bytes(extended((image / "initrd").read_bytes(), [insider]))
        plain = spec_of_image(
            image,
            name="spine",
            memory_mib=3072,
            disks=(LabDisk(size_bytes=4 << 30, label=STATE_LABEL),),
            nics=(LabNic(forwards=(443, KILLER)),),
            append="rdinit=/insider.py",
        )
        self.server = LabServer.up(msgspec.structs.replace(plain, initrd=str(initrd)))
        self.client = Client("https://127.0.0.1", trust=Trust(insecure=True))  # replaced by `sign_in`

    def ready(self) -> None:
        self.server.wait_for(b"thimble: ready in ", BOOT_S)

    def sign_in(self) -> None:
        fingerprint = after(self.server, b"certificate SHA-256 ")
        self.password = after(self.server, b"login admin, password ")
        url = f"https://127.0.0.1:{self.server.forward(443)}"
        self.client = Client(url, trust=Trust(fingerprint=fingerprint))
        self.sign_in_again()

    def sign_in_again(self) -> None:
        self.client.token = signed_in(self.client, self.password)

    def vm(self, name: str = "tiny") -> Vm:
        found: Vm = self.client.call("vm.get", path={"vm": name})
        return found

    def create(self) -> None:
        guest = tiny.ensure(on_stderr)
        for name, file in (("vmlinuz", guest.kernel), ("initrd", guest.initrd)):
            with file.open("rb") as content:
                self.client.upload("image.upload", content, file.stat().st_size, path={"image": name})
        wanted = VmCreate(
            name="tiny", memory_mib=192, firmware=Firmware.DIRECT, vga=False, tablet=False,
            direct=DirectBoot(kernel="vmlinuz", initrd="initrd", cmdline=guest.cmdline),
            disks=(DiskSpec(size_bytes=64 << 20),), nics=(NicSpec(switch="nat"),),
            host_shutdown=HostShutdown.SAVE, start=True,
        )  # fmt: skip
        other = msgspec.structs.replace(
            wanted, name="other", disks=(), nics=(), host_shutdown=HostShutdown.SHUTDOWN, start=False,
            autostart=Autostart(enabled=True),
        )  # fmt: skip
        for one in (wanted, other):
            self.client.finish(self.client.call("vm.create", one), timeout=120)

    def says(self, wanted: bytes, typed: bytes = b"", timeout: float = 120) -> None:
        """Wait for `wanted` on the VM's console, after typing something."""
        seen = b""
        deadline = time.monotonic() + timeout
        with until("console", lambda: self.client.console("tiny")) as line:
            if typed:
                line.send(typed)
            while wanted not in seen:
                left = deadline - time.monotonic()
                assert left > 0, f"the console did not say {wanted!r}: {seen[-400:]!r}"
                piece = line.recv(timeout=left)
                seen += piece if isinstance(piece, bytes) else piece.encode()

    def kill_agent(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.forward(KILLER)), 30) as line:
            assert line.recv(64).startswith(b"killed 1"), "exactly one agent runs"


def test_a_vm_lives_through_the_agents_death_and_the_hosts_reboot(image: Path, tmp_path: Path) -> None:
    def run(attempt: int) -> None:
        scratch = tmp_path / str(attempt)
        scratch.mkdir()
        spine = Spine(image, scratch)
        try:
            the_whole_life(spine)
        finally:
            print(spine.server.serial.tail(4000).decode(errors="replace"))
            spine.server.down(force=True)

    with_retries(run)


def the_whole_life(spine: Spine) -> None:
    spine.ready()
    spine.sign_in()
    host: Host = spine.client.call("host.get")
    assert (host.accel, host.state, host.hosted) == ("kvm", "partition", False)
    spine.create()
    spine.says(b"tiny guest: up")
    before = spine.vm()
    assert (before.status.state, before.status.accel) == (PowerState.RUNNING, "kvm")

    spine.kill_agent()
    spine.sign_in_again()
    adopted = until("adoption", lambda: (vm := spine.vm()).status.state is PowerState.RUNNING and vm)
    assert adopted.status.pid == before.status.pid, "the same QEMU runs on"
    assert adopted.status.started == before.status.started
    spine.says(b"six times seven is 42", b"echo six times seven is $((6*7))\n")

    spine.says(b"kept it\r\n", b"kept=it\necho kept $kept\n")
    spine.client.call("host.reboot", PowerRequest(guest_timeout_s=20))
    spine.server.wait_for(b"thimble: rebooting", 120)
    spine.ready()
    spine.sign_in_again()
    until("resume", lambda: spine.vm().status.state is PowerState.RUNNING)
    spine.says(b"still it\r\n", b"echo still $kept\n")
    until("autostart", lambda: spine.vm("other").status.state is PowerState.RUNNING)

    spine.client.finish(spine.client.call("vm.kill", path={"vm": "other"}), timeout=60)
    spine.client.finish(spine.client.call("vm.delete", DeleteRequest(), path={"vm": "other"}), timeout=60)
    spine.client.finish(
        spine.client.call("vm.stop", StopRequest(timeout_s=60, force=True), path={"vm": "tiny"}), timeout=120
    )
    assert spine.vm().status.state is PowerState.STOPPED
    spine.client.finish(spine.client.call("vm.delete", DeleteRequest(), path={"vm": "tiny"}), timeout=60)
    assert spine.client.call("vm.list").vms == ()
    spine.client.call("host.shutdown", PowerRequest())
    assert spine.server.wait_off(120), "the host powers itself off"
