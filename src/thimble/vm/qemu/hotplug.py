"""Carries out one effect of a change in a running QEMU, over QMP: whole, or undone where a step fails."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import assert_never

from thimble.core.problem import Code, Problem
from thimble.vm.qemu import launch_fds, render
from thimble.vm.qemu.descriptors import LaunchFds
from thimble.vm.qemu.qmp import Control
from thimble.vm.record.change import AddDisk, AddNic, ChangeMedium, Effect, RemoveDisk, RemoveNic
from thimble.vm.record.spec import Definition

#: Seconds a guest gets to let go of a device.
UNPLUG_S = 30.0


async def carry_out(effect: Effect, qmp: Control, source: launch_fds.Source, record: Definition) -> None:
    """Raises `Problem` in QEMU's words."""
    match effect:
        case AddDisk():
            await _add_disk(effect, qmp, source)
        case RemoveDisk(disk):
            await _unplug(qmp, f"disk-{disk.name}")
            await _forget(qmp, f"disk-{disk.name}")
        case AddNic():
            await _add_nic(effect, qmp, source, record)
        case RemoveNic(nic):
            await _unplug(qmp, f"nic-{nic.name}")
            await qmp.execute("netdev_del", {"id": f"nic-{nic.name}"})
            await source.network.close_port(source.id, nic.name)
        case ChangeMedium():
            await _change_medium(effect, qmp, source)
        case _:
            assert_never(effect)


async def _add_set(qmp: Control, descriptor: int, key: str) -> int:
    qmp.send(descriptor)
    answer = await qmp.execute("add-fd", {"opaque": key})
    return int(answer["fdset-id"])


async def _forget(qmp: Control, key: str) -> None:
    """No device uses the node any more: close the file, which its descriptor set keeps open too."""
    await qmp.execute("blockdev-del", {"node-name": key})
    await _close_sets(qmp, key)


async def _close_sets(qmp: Control, key: str, *, keep: int | None = None) -> None:
    """Take back the descriptors handed over for `key`, but for the set `keep`.

    What fails here changes nothing for the guest: the file stays open until QEMU ends.
    """
    with suppress(Problem):
        for found in await qmp.execute("query-fdsets"):
            ours = any(fd.get("opaque") == key for fd in found["fds"])
            if ours and found["fdset-id"] != keep:
                await qmp.execute("remove-fd", {"fdset-id": found["fdset-id"]})


async def _add_disk(effect: AddDisk, qmp: Control, source: launch_fds.Source) -> None:
    disk, key = effect.disk, f"disk-{effect.disk.name}"
    with LaunchFds() as things:
        launch_fds.open_disk(things, source, disk)
        path = f"/dev/fdset/{await _add_set(qmp, things.fds[key], key)}"
    try:
        await qmp.execute("blockdev-add", render.blockdev(key, path, disk.format, read_only=disk.read_only))
        await qmp.execute("device_add", render.disk_device(disk, effect.address))
    except Problem:
        with suppress(Problem):
            await qmp.execute("blockdev-del", {"node-name": key})
        await _close_sets(qmp, key)
        raise


async def _add_nic(effect: AddNic, qmp: Control, source: launch_fds.Source, record: Definition) -> None:
    nic, key = effect.nic, f"nic-{effect.nic.name}"
    with LaunchFds() as things:
        await launch_fds.open_nic(things, source, record, nic)
        for name, descriptor in things.fds.items():
            qmp.send(descriptor)
            await qmp.execute("getfd", {"fdname": name})
        vhost = f"{key}.vhost" if f"{key}.vhost" in things.fds else None
    try:
        await qmp.execute("netdev_add", render.netdev(nic, key, vhost))
        try:
            await qmp.execute("device_add", render.nic_device(nic, effect.address))
        except Problem:
            await qmp.execute("netdev_del", {"id": key})
            raise
    except Problem:
        await source.network.close_port(source.id, nic.name)
        raise


async def _change_medium(effect: ChangeMedium, qmp: Control, source: launch_fds.Source) -> None:
    key = f"cd-{effect.name}"
    new: int | None = None
    if effect.image is None:
        await qmp.execute("eject", {"id": key, "force": True})
    else:
        with LaunchFds() as things:
            things.open_regular(key, source.image(effect.image), os.O_RDONLY)
            new = await _add_set(qmp, things.fds[key], key)
        medium = {"id": key, "filename": f"/dev/fdset/{new}", "format": "raw", "force": True}
        try:
            await qmp.execute("blockdev-change-medium", medium | {"read-only-mode": "read-only"})
        except Problem:
            with suppress(Problem):
                await qmp.execute("remove-fd", {"fdset-id": new})
            raise
    with suppress(Problem):  # the medium of its start is a node of its own
        await qmp.execute("blockdev-del", {"node-name": key})
    await _close_sets(qmp, key, keep=new)


async def _unplug(qmp: Control, device: str) -> None:
    """Ask the guest to let the device go, and wait until it has."""
    import asyncio

    gone = asyncio.ensure_future(qmp.event("DEVICE_DELETED", device, UNPLUG_S))
    await asyncio.sleep(0)  # it listens now
    try:
        await qmp.execute("device_del", {"id": device})
        await gone
    except TimeoutError:
        raise Problem(
            Code.TIMEOUT,
            f"the guest did not let go of {device} within {UNPLUG_S:.0f} s",
            hint="Is it in use there? Try again, or stop the VM.",
        ) from None
    finally:
        gone.cancel()
