"""A NoCloud seed and the real cloud-init of Debian 13: the guest becomes who it was asked to be."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from agent_place import until

from thimble.client.http import Client
from thimble.contract.network import Switch
from thimble.contract.vm import (
    DirectBoot,
    DiskSpec,
    Firmware,
    NicSpec,
    SeedMethod,
    SeedSpec,
    Vm,
    VmCreate,
)
from thimble.guest import cloud
from thimble.guest.debian import DebianGuest
from thimble.image.progress import on_stderr

BOOT_S = 420.0  # emulated, two at a time, on a machine that has other work; 70 s on a quiet one

pytestmark = [pytest.mark.usefixtures("no_vms"), pytest.mark.timeout(900)]


@pytest.fixture(scope="session")
def debian() -> DebianGuest:
    return cloud.ensure(on_stderr)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path


def put(client: Client, guest: DebianGuest) -> None:
    assert guest.initrd is not None
    for name, file in (
        ("cloud.qcow2", guest.disk),
        ("cloud.vmlinuz", guest.kernel),
        ("cloud.initrd", guest.initrd),
    ):
        with file.open("rb") as content:
            client.upload("image.upload", content, file.stat().st_size, path={"image": name})


def create(client: Client, name: str, guest: DebianGuest, seed: SeedSpec) -> Vm:
    """A VM that has nothing but the NoCloud volume to learn from, running."""
    spec = VmCreate(
        name=name,
        memory_mib=512,
        firmware=Firmware.DIRECT,
        direct=DirectBoot(kernel="cloud.vmlinuz", initrd="cloud.initrd", cmdline=guest.cmdline),
        disks=(DiskSpec(image="cloud.qcow2"),),
        nics=(NicSpec(switch="nat"),),
        seed=seed,
        vga=False,
        tablet=False,
        guest_agent=False,
        start=True,
    )
    client.finish(client.call("vm.create", spec), timeout=120)
    vm: Vm = client.call("vm.get", path={"vm": name})
    return vm


def seeded(client: Client, name: str) -> None:
    """Return when its cloud-init is through with everything."""

    def said() -> bool:
        return cloud.DONE in client.call("vm.log", path={"vm": name}).text

    until(f"{name} has taken its first-boot data", said, BOOT_S, pace=1)


def asks(key: Path, user: str, address: str, *script: str) -> list[str]:
    """What the commands say, line by line, when `user` gives them over SSH."""
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR"]
    words = ["ssh", "-F", "none", "-i", str(key), *(word for one in options for word in ("-o", one))]
    done = subprocess.run(
        [*words, f"{user}@{address}", "; ".join(script)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_cloud_init_sets_host_name_user_key_and_network_from_the_nocloud_volume(
    client: Client, debian: DebianGuest, key: Path
) -> None:
    put(client, debian)
    switch: Switch = client.call("switch.get", path={"switch": "nat"})
    fixed = IPv4Interface(f"{IPv4Interface(switch.subnet).network[77]}/24")
    public = (key.with_suffix(".pub").read_text().strip(),)
    create(
        client, "fixed", debian,
        SeedSpec(
            method=SeedMethod.NOCLOUD, hostname="harbour", user="mary", ssh_keys=public,
            address=str(fixed), gateway=switch.gateway, dns=(switch.gateway,),
        ),
    )  # fmt: skip
    leased = create(client, "leased", debian, SeedSpec(method=SeedMethod.NOCLOUD, ssh_keys=public))

    seeded(client, "fixed")
    name, who, root, *routes = asks(
        key, "mary", str(fixed.ip),
        "hostname", "id --user --name", "sudo -n id --user",
        "ip -4 -o route show dev eth0", "resolvectl dns eth0",
    )  # fmt: skip
    assert (name, who, root) == ("harbour", "mary", "0")
    assert f"default via {switch.gateway} proto static" in "\n".join(routes)
    assert routes[-1].endswith(f": {switch.gateway}")

    seeded(client, "leased")
    assert asks(key, "root", leased.nics[0].ip[0], "hostname", "ls /home") == ["leased"]
