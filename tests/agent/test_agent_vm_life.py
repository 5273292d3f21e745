"""A VM's whole life over the command line and the API, with a real QEMU and a real guest."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
from pathlib import Path

import pytest
from agent_place import Agent, Cli, Place, Typist, until

from thimble.client.http import Client
from thimble.contract.vm import (
    Autostart,
    CrashPolicy,
    DirectBoot,
    DiskSpec,
    Firmware,
    NicSpec,
    PowerState,
    StopRequest,
    Vm,
    VmChange,
    VmCreate,
)
from thimble.core.problem import Code, Problem

pytestmark = pytest.mark.usefixtures("no_vms")

UP = "tiny guest: up"


def tiny(name: str, images: tuple[str, str], **more: object) -> VmCreate:
    """A tiny guest without what it does not need."""
    fields: dict[str, object] = {
        "memory_mib": 96, "firmware": Firmware.DIRECT, "vga": False, "tablet": False, "guest_agent": False,
        "direct": DirectBoot(kernel=images[0], initrd=images[1], cmdline="console=ttyS0 quiet panic=-1"),
        "start": True,
    } | more  # fmt: skip
    return VmCreate(name=name, **fields)  # type: ignore[arg-type]


def create(client: Client, spec: VmCreate) -> Vm:
    client.finish(client.call("vm.create", spec), timeout=60)
    return get(client, spec.name)


def get(client: Client, name: str) -> Vm:
    vm: Vm = client.call("vm.get", path={"vm": name})
    return vm


def said(client: Client, name: str) -> str:
    return str(client.call("vm.log", path={"vm": name}).text)


def guest_says(client: Client, name: str, words: str, timeout: float = 90) -> None:
    until(f"{name} says {words!r}", lambda: words in said(client, name), timeout, pace=0.25)


def state(client: Client, name: str, wanted: PowerState, timeout: float = 60) -> Vm:
    return until(
        f"{name} is {wanted}",
        lambda: vm if (vm := get(client, name)).status.state is wanted else None,
        timeout,
    )  # type: ignore[no-any-return]


def test_create_start_console_network_stop_change_delete(
    cli: Cli, client: Client, images: tuple[str, str], place: Place, agent: Agent
) -> None:
    links = place.links()
    told = cli.ok(
        "vm", "create", "web1", "--kernel", images[0], "--initrd", images[1], "--cmdline",
        "console=ttyS0 quiet panic=-1", "--memory", "96M", "--disk", "64M", "--nic", "nat",
        "--without", "vga", "--without", "tablet",
    )  # fmt: skip
    assert told.startswith("created web1: stopped, 1 vCPU, 96 MiB")
    assert place.qemus() == []
    assert "running" in cli.ok("vm", "start", "web1")
    assert len(place.qemus()) == 1
    with Typist(cli, "web1") as typist:
        typist.sees(UP.encode())
        address = re.search(rb"tiny guest: address ([0-9.]+)", typist.sees(b"\r\ntiny# "))
        typist.types(b"echo sum $((40+2)); cat /sys/block/vda/size\r")
        assert b"131072" in typist.sees(b"131072")
    vm = get(client, "web1")
    assert address is not None
    assert vm.nics[0].ip == (address[1].decode(),)
    with socket.create_connection((vm.nics[0].ip[0], 7), 10) as line:
        line.settimeout(10)
        assert line.recv(64) == b"tiny guest: hello\n"
    assert "sum 42" in cli.ok("vm", "log", "web1")
    assert "web1  running" in cli.ok("vm", "list")

    assert "web1: stopped" in cli.ok("vm", "stop", "web1", "--timeout", "30s")
    assert "tiny guest: power button" in cli.ok("vm", "log", "web1")
    assert place.qemus() == []

    assert "128 MiB" in cli.ok(
        "vm", "change", "web1", "--memory", "128M", "--rename", "web2", "--remove-nic", "nic0"
    )
    assert cli.json("vm", "show", "web2")["nics"] == []
    assert cli.ok("vm", "delete", "web2", "--yes") == "web2: deleted\n"
    assert cli("vm", "show", "web2").returncode == 5
    assert place.links() == links
    assert not list((agent.state / "datastores" / "local" / "vms").iterdir())


def test_pause_resume_reset_kill(client: Client, images: tuple[str, str]) -> None:
    create(client, tiny("p", images))
    guest_says(client, "p", UP)
    client.finish(client.call("vm.pause", path={"vm": "p"}))
    assert get(client, "p").status.state is PowerState.PAUSED
    client.finish(client.call("vm.resume", path={"vm": "p"}))
    assert get(client, "p").status.state is PowerState.RUNNING
    pid = get(client, "p").status.pid
    client.finish(client.call("vm.reset", path={"vm": "p"}))
    until("it boots once more", lambda: said(client, "p").count(UP) == 2, 60)
    assert get(client, "p").status.pid == pid
    client.finish(client.call("vm.kill", path={"vm": "p"}))
    assert get(client, "p").status.state is PowerState.STOPPED


def test_a_disk_from_an_uploaded_image_holds_its_bytes(
    client: Client, cli: Cli, images: tuple[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "marked.raw"
    file.write_bytes(b"THIMBLE-MARK\n" + bytes(1024 * 1024 - 13))
    cli.ok("disk", "image", "upload", str(file))
    run = "console=ttyS0 quiet panic=-1 tiny.run=head,-c,12,/dev/vda"
    direct = DirectBoot(kernel=images[0], initrd=images[1], cmdline=run)
    create(
        client, tiny("d", images, direct=direct, disks=(DiskSpec(image="marked.raw", size_bytes=8 << 20),))
    )
    guest_says(client, "d", "THIMBLE-MARK")
    used = client.call("volume.list").volumes
    assert [(volume.vm, volume.size_bytes) for volume in used] == [(get(client, "d").id, 8 << 20)]
    with pytest.raises(Problem) as caught:
        client.call("volume.delete", path={"volume": used[0].name})
    assert caught.value.code is Code.IN_USE
    client.finish(client.call("vm.kill", path={"vm": "d"}))
    cli.ok("vm", "delete", "d", "-y")
    cli.ok("disk", "image", "delete", "marked.raw", "-y")
    assert client.call("volume.list").volumes == ()


def test_a_restarted_agent_adopts_the_running_vm(
    agent: Agent, cli: Cli, client: Client, images: tuple[str, str]
) -> None:
    create(client, tiny("a", images, nics=(NicSpec(switch="nat"),)))
    guest_says(client, "a", "tiny guest: address")
    before = get(client, "a")
    agent.end(signal.SIGKILL)
    agent.start()
    after = state(client, "a", PowerState.RUNNING)
    assert (after.status.pid, after.status.restarts) == (before.status.pid, 0)
    with Typist(cli, "a") as typist:
        typist.sees(UP.encode())
        typist.types(b"\recho still $((40+2))\r")
        typist.sees(b"still 42")
    with socket.create_connection((after.nics[0].ip[0], 7), 10) as line:
        line.settimeout(10)
        assert line.recv(64) == b"tiny guest: hello\n"
    client.finish(client.call("vm.stop", StopRequest(timeout_s=30), path={"vm": "a"}), timeout=60)
    assert get(client, "a").status.state is PowerState.STOPPED


def test_a_vm_that_died_while_the_agent_was_away_tells_so(
    agent: Agent, client: Client, images: tuple[str, str], place: Place
) -> None:
    create(client, tiny("c", images, on_crash=CrashPolicy.STOP))
    guest_says(client, "c", UP)
    agent.end(signal.SIGKILL)
    (qemu,) = place.qemus()
    os.kill(qemu, signal.SIGKILL)
    until("QEMU is gone", lambda: not place.qemus(), 10)
    agent.start()
    vm = state(client, "c", PowerState.CRASHED)
    assert vm.status.why
    assert UP in vm.status.last_output
    assert "start" in vm.allowed


def test_a_crash_is_told_or_mended_as_the_policy_says(
    client: Client, images: tuple[str, str], place: Place
) -> None:
    vm = create(client, tiny("c", images, on_crash=CrashPolicy.STOP))
    guest_says(client, "c", UP)
    assert vm.status.pid is not None
    os.kill(vm.status.pid, signal.SIGKILL)
    crashed = state(client, "c", PowerState.CRASHED)
    assert "QEMU" in crashed.status.why
    assert UP in crashed.status.last_output
    client.finish(client.call("vm.change", VmChange(on_crash=CrashPolicy.RESTART), path={"vm": "c"}))
    client.finish(client.call("vm.start", path={"vm": "c"}))
    pid = get(client, "c").status.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    again = until(
        "it runs again",
        lambda: vm
        if (vm := get(client, "c")).status.restarts and vm.status.state is PowerState.RUNNING
        else None,
        60,
    )
    assert again.status.pid != pid
    assert place.qemus() == [again.status.pid]


def test_vms_start_with_the_host_in_their_order(
    agent: Agent, client: Client, images: tuple[str, str], place: Place
) -> None:
    for name, order in (("late", 20), ("early", 10), ("never", None)):
        auto = Autostart(enabled=order is not None, order=order or 0, delay_s=0.5)
        create(client, tiny(name, images, autostart=auto, start=False))
    agent.end()
    shutil.rmtree(agent.run)  # as a reboot of the host does
    agent.start()
    early, late = state(client, "early", PowerState.RUNNING), state(client, "late", PowerState.RUNNING)
    assert early.status.started is not None
    assert late.status.started is not None
    assert late.status.started - early.status.started >= 0.5
    assert get(client, "never").status.state is PowerState.STOPPED
    assert len(place.qemus()) == 2


def test_several_watch_one_console_and_a_late_one_sees_the_past(
    client: Client, images: tuple[str, str]
) -> None:
    create(client, tiny("w", images))
    guest_says(client, "w", "tiny# ")
    with client.console("w") as one, client.console("w") as two:
        past = b""
        while b"tiny# " not in past:
            past += bytes(two.recv(timeout=10))
        assert UP.encode() in past
        one.send(b"echo both $((40+2))\r")
        for viewer in (one, two):
            seen = b""
            while b"both 42" not in seen:
                seen += bytes(viewer.recv(timeout=20))
    client.finish(client.call("vm.kill", path={"vm": "w"}))
    with pytest.raises(Problem) as caught:
        client.console("w")
    assert caught.value.code is Code.CONFLICT


def test_a_dry_run_tells_everything_and_does_nothing(
    cli: Cli, client: Client, images: tuple[str, str], agent: Agent
) -> None:
    told = cli(
        "vm", "create", "x", "--kernel", images[0], "--disk", "10G", "--nic", "nat", "--start", "--dry-run"
    )
    assert told.returncode == 0, told.stderr
    assert "this would happen" in told.stdout
    assert "10 GiB" in told.stdout
    assert client.call("vm.list").vms == ()
    assert not list((agent.state / "datastores" / "local" / "vms").iterdir())
    told = cli("vm", "create", "x", "--kernel", "nope", "--nic", "nowhere", "--dry-run")
    assert told.returncode != 0
    assert "nope" in told.stdout
    assert "nowhere" in told.stdout


def test_two_changes_at_once_do_not_overwrite_each_other(client: Client, images: tuple[str, str]) -> None:
    vm = create(client, tiny("r", images, start=False))
    client.finish(client.call("vm.change", VmChange(memory_mib=128), path={"vm": "r"}, if_match=vm.rev))
    with pytest.raises(Problem) as caught:
        client.call("vm.change", VmChange(memory_mib=256), path={"vm": "r"}, if_match=vm.rev)
    assert caught.value.code is Code.STALE
    assert get(client, "r").memory_mib == 128


def test_a_create_repeated_with_its_key_makes_one_vm(client: Client, images: tuple[str, str]) -> None:
    spec = tiny("k", images, start=False)
    first = client.call("vm.create", spec, key="0123456789abcdef")
    client.finish(first)
    assert client.call("vm.create", spec, key="0123456789abcdef").subject == first.subject
    assert len(client.call("vm.list").vms) == 1
