"""A real guest on a real switch: its port, its address, its forward, its console, its disk."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from own_network import inside, own_network

from thimble.console.serial import Consoles, Session
from thimble.contract.call import Call
from thimble.contract.network import Forward, SwitchChange
from thimble.contract.vm import DiskFormat
from thimble.guest import tiny
from thimble.image import cache
from thimble.network.records import PortUse
from thimble.network.service import Network
from thimble.state.events import Events
from thimble.state.tasks import Tasks
from thimble.storage.service import Storage
from thimble.sys import process

MAC = "52:54:00:77:00:01"
TOOLS = cache.root() / "toolbox" / "bin"


@pytest.fixture
def guest() -> tiny.TinyGuest:
    return tiny.ensure()


async def see(session: Session, wanted: bytes) -> bytes:
    seen = b""
    async for data in session:
        seen += data
        if wanted in seen:
            return seen
    raise AssertionError(f"ended ({session.why}) after {seen[-300:]!r}")


def start(directory: Path, guest: tiny.TinyGuest, disk: Path, tap: int) -> process.Identity:
    return process.spawn(
        [
            str(TOOLS / "qemu-system-x86_64"),
            "-nodefaults",
            "-no-user-config",
            "-display", "none",
            "-machine", "q35,accel=tcg",
            "-m", "160",
            "-kernel", str(guest.kernel),
            "-initrd", str(guest.initrd),
            "-append", guest.cmdline,
            "-chardev", f"socket,id=s,path={directory}/serial.sock,server=on,wait=off,"
            f"logfile={directory}/serial.log,logappend=on",
            "-serial", "chardev:s",
            "-netdev", f"tap,id=n,fd={tap}",
            "-device", f"virtio-net-pci,netdev=n,mac={MAC},romfile=",
            "-drive", f"if=virtio,format=qcow2,file={disk}",
        ],
        output=directory / "qemu.log",
        fds=(tap,),
    )  # fmt: skip


@pytest.mark.agent
@own_network
async def test_a_guest_gets_its_address_its_forward_and_its_console(
    tmp_path: Path, guest: tiny.TinyGuest
) -> None:
    events = Events(base=1, clock=time.time)
    tasks = Tasks(events, clock=time.time, entropy=os.urandom)
    storage = Storage(
        tmp_path / "state", tmp_path / "run", events=events, tasks=tasks, qemu_img=str(TOOLS / "qemu-img")
    )
    network = Network(tmp_path / "state", tmp_path / "run", events=events)
    await storage.open()
    await network.open()
    ip = network.address_for("nat", MAC, set())
    network.hosts = lambda: [PortUse(vm_id="vm-1", vm_name="tiny", nic="nic0", switch="nat", mac=MAC, ip=ip)]
    disk = storage.homes()["local"] / "vm-1" / "disk0.qcow2"
    await storage.create_volume(disk, size_bytes=64 << 20, image=None, home="local", format=DiskFormat.QCOW2)
    port = await network.open_port("vm-1", "nic0", switch="nat", mac=MAC, ip=ip, hostname="tiny")
    who = start(tmp_path, guest, disk, port.fd)
    os.close(port.fd)
    try:
        consoles = Consoles()
        await consoles.attach("vm-1", tmp_path / "serial.sock")
        viewer = await consoles.session("vm-1")
        assert ip.encode() in await see(viewer, b"tiny# ")
        await viewer.write(b"cat /sys/block/vda/size\n")
        assert b"131072" in await see(viewer, b"131072")
        await consoles.close()

        forward = Forward(port=2207, vm="tiny", to_port=7)
        switch = network.services()["switch"].get()
        call = Call(input=SwitchChange(forwards=(forward,)), path={"switch": "nat"})
        await switch.change(call)  # type: ignore[attr-defined]
        reader, writer = await asyncio.open_connection("127.0.0.1", 2207)
        assert b"tiny guest: hello" in await reader.readline()
        writer.close()

        again = Consoles()
        await again.attach("vm-1", tmp_path / "serial.sock")
        viewer = await again.session("vm-1")
        assert b"tiny guest: up" in await see(viewer, b"131072"), "the history outlives the agent"
        await again.close()
    finally:
        process.send(who, signal.SIGKILL)
        await process.exited(who)
    assert port.name not in inside("", "ip", "-br", "link"), "the port went with QEMU"
    await network.remove()
