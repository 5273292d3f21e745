"""Hot plug, CD changes and real ports."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from own_network import own_network
from vm_world import FIRST_LINE, World, in_world

from thimble.contract.vm import (
    CdromSpec,
    DeleteRequest,
    DiskBus,
    DiskSpec,
    NicSpec,
    PowerState,
    VmChange,
)
from thimble.core.units import MIB
from thimble.network.service import Network

DISK = DiskSpec(size_bytes=16 * MIB)


async def change(world: World, id: str, **fields: object) -> dict[str, str]:
    answer = await world.vms.reconfigure.change(world.call(id, VmChange(**fields)))  # type: ignore[arg-type]
    return (await world.done(answer)).result


async def open_files(world: World, id: str, *suffixes: str) -> list[str]:
    """Names of the files with these suffixes that the VM's QEMU has open, each once."""
    pid = (await world.get(id)).status.pid
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            path = link.readlink()
            if path.suffix in suffixes:
                found.add(path.stem)
    return sorted(found)


@in_world
async def test_disks_come_and_go_while_the_guest_runs(world: World) -> None:
    id = await world.create(world.tiny(disks=(DISK,)))
    await world.start(id)
    await world.says(id, "tiny# ")
    await world.types(id, "ls /sys/block; echo done 1\n")
    await world.says(id, "vda")
    assert (
        await change(world, id, disks=(DiskSpec(name="disk0"), DiskSpec(name="more", size_bytes=8 * MIB)))
        == {}
    )
    vm = await world.get(id)
    assert [(disk.name, disk.address) for disk in vm.disks] == [("disk0", "01:00.0"), ("more", "02:00.0")]
    assert await open_files(world, id, ".qcow2", ".raw") == ["disk0", "more"]
    await world.types(id, "sleep 1; cat /sys/block/vdb/size\n")
    await world.says(id, "16384")
    result = await change(world, id, disks=(DiskSpec(name="disk0"),))
    assert result == {"kept": "local/web1-more"}
    assert await open_files(world, id, ".qcow2", ".raw") == ["disk0"]
    kept = world.storage.resolve_volume("local/web1-more", "local")
    assert kept.size_bytes == 8 * MIB
    assert (await world.get(id)).status.pending == ()


@in_world
async def test_what_cannot_be_hot_waits_for_a_cold_start(world: World) -> None:
    id = await world.create(world.tiny())
    await world.start(id)
    result = await change(world, id, memory_mib=192, disks=(DiskSpec(size_bytes=MIB, bus=DiskBus.SATA),))
    assert result == {"pending": "memory 128 → 192 MiB; adds disk disk0"}
    assert (await world.get(id)).status.pending == ("memory 128 → 192 MiB", "adds disk disk0")
    await world.done(await world.vms.power.kill(world.call(id)))
    await world.start(id)
    assert (await world.get(id)).status.pending == ()


@in_world
async def test_a_medium_is_changed_while_the_guest_runs(world: World) -> None:
    spec = world.tiny(cdroms=(CdromSpec(image="one.iso"),))
    for name in ("one", "two", "three"):
        image = world.root / "state" / "datastores" / "local" / "images" / f"{name}.iso"
        image.write_bytes(bytes(MIB))
    id = await world.create(spec)
    await world.start(id)
    await world.says(id, FIRST_LINE)
    assert await open_files(world, id, ".iso") == ["one"]
    for name in ("two", "three", "one"):
        assert await change(world, id, cdroms=(CdromSpec(name="cd0", image=f"{name}.iso"),)) == {}
        assert (await world.get(id)).cdroms[0].image == f"{name}.iso"
        assert await open_files(world, id, ".iso") == [name]
    assert await change(world, id, cdroms=(CdromSpec(name="cd0"),)) == {}
    assert await open_files(world, id, ".iso") == []
    assert (await world.get(id)).status.pending == ()


@own_network
async def test_a_guest_gets_its_address_and_a_second_nic(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.network = network = Network(tmp_path / "state", tmp_path / "run", events=world.events)
    world.vms.context.network = network
    network.hosts = world.vms.table.port_uses
    await world.storage.open()
    await network.open()
    await world.vms.open()
    await network.sync()
    try:
        id = await world.create(world.tiny(nics=(NicSpec(switch="nat"),)))
        ip = (await world.get(id)).nics[0].ip[0]
        await world.start(id)
        await world.says(id, f"tiny guest: address {ip}")
        await world.says(id, "tiny# ")
        assert await change(world, id, nics=(NicSpec(name="nic0", switch="nat"), NicSpec(switch="nat"))) == {}
        await world.types(id, "until ls /sys/class/net | grep eth[1-9]; do sleep 1; done\n")
        await world.says(id, "eth1")
        assert await change(world, id, nics=(NicSpec(name="nic0", switch="nat"),)) == {}
        await world.done(await world.vms.power.kill(world.call(id)))
        assert (await world.get(id)).status.state is PowerState.STOPPED
        assert not [port for port in Path("/sys/class/net").iterdir() if port.name.startswith("tp-")]
        await world.done(await world.vms.reconfigure.delete(world.call(id, DeleteRequest())))
    finally:
        world.kill_all()
        await network.remove()
        await network.close()
