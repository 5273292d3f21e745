"""Opens everything that one start of a VM needs, under the keys that `render` asks for.

Owns nothing: all descriptors go into the `LaunchFds` handed in, which closes our
copies after QEMU has its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from thimble.contract.vm import Firmware
from thimble.core.problem import Code, Problem
from thimble.storage.homes import UEFI_VARIABLES
from thimble.vm.qemu import fat, seed
from thimble.vm.qemu.descriptors import LaunchFds
from thimble.vm.qemu.programs import QemuPaths
from thimble.vm.qemu.rundir import RunDir
from thimble.vm.record import layout
from thimble.vm.record.spec import Definition, Disk, Nic

if TYPE_CHECKING:
    from thimble.network.service import Network
    from thimble.storage.service import Storage


class Source:
    """Where the things of one VM are found."""

    def __init__(self, storage: Storage, network: Network, id: str, home: str) -> None:
        self.storage = storage
        self.network = network
        self.id = id
        self.home = home

    @property
    def directory(self) -> Path:
        """The VM's directory in its datastore. Raises `Problem` when the datastore is not mounted."""
        try:
            return self.storage.homes()[self.home] / self.id
        except KeyError:
            raise Problem(
                Code.UNAVAILABLE,
                f"the datastore {self.home} is not mounted",
                hint="Look at `thimble datastore list`.",
            ) from None

    def disk(self, disk: Disk) -> Path:
        if disk.volume:
            return Path(self.storage.resolve_volume(disk.volume, self.home).path)
        return self.directory / disk.file

    def image(self, ref: str) -> Path:
        return Path(self.storage.resolve_image(ref, self.home).path)


def open_all(
    fds: LaunchFds, rundir: RunDir, source: Source, record: Definition, qemu: QemuPaths, accel: str
) -> tuple[str, ...]:
    """Everything but the network; the names of the credentials."""
    if accel == "kvm":
        fds.open("kvm", "/dev/kvm", os.O_RDWR)
    _open_control(fds, rundir, record)
    _open_boot(fds, source, record, qemu)
    for disk in record.disks:
        open_disk(fds, source, disk)
    for cdrom in record.cdroms:
        if cdrom.image is not None:
            fds.open_regular(f"cd-{cdrom.name}", source.image(cdrom.image), os.O_RDONLY)
    return _open_seed(fds, source.id, record)


def _open_control(fds: LaunchFds, rundir: RunDir, record: Definition) -> None:
    fds.listen("qmp", rundir.qmp)
    if record.serial:
        fds.listen("serial", rundir.serial)
        fds.open("serial.log", rundir.serial_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    if record.guest_agent:
        fds.listen("qga", rundir.qga)


def _open_boot(fds: LaunchFds, source: Source, record: Definition, qemu: QemuPaths) -> None:
    if record.firmware is Firmware.UEFI:
        fds.open("firmware.code", qemu.ovmf_code, os.O_RDONLY)
        fds.open_regular("firmware.vars", source.directory / UEFI_VARIABLES, os.O_RDWR)
    elif record.direct is not None:
        from thimble.storage import images

        fds.take("kernel", images.open_again(source.image(record.direct.kernel)))
        if record.direct.initrd:
            fds.take("initrd", images.open_again(source.image(record.direct.initrd)))


def _open_seed(fds: LaunchFds, id: str, record: Definition) -> tuple[str, ...]:
    if record.seed is None:
        return ()
    mac = record.nics[0].mac if record.nics else ""
    if layout.wants_seed_disk(record):
        files = seed.nocloud(record.seed, id, record.name, mac)
        fds.memory("seed", fat.image(files, label=seed.LABEL))
    found = seed.credentials(record.seed, record.name, mac)
    for name, value in found.items():
        fds.memory(f"cred-{name}", value if record.machine == "microvm" else seed.smbios(name, value))
    return tuple(found)


def open_disk(fds: LaunchFds, source: Source, disk: Disk) -> None:
    """For a start, and for plugging it in later."""
    from thimble.storage import volume_files

    path = source.disk(disk)
    fds.take(f"disk-{disk.name}", volume_files.open_volume(path, disk.format, read_only=disk.read_only))


async def open_nic(fds: LaunchFds, source: Source, record: Definition, nic: Nic) -> None:
    """A port on its switch; the tap vanishes with the last descriptor of it."""
    port = await source.network.open_port(
        source.id, nic.name, switch=nic.switch, mac=nic.mac, ip=nic.ip, hostname=record.name
    )
    fds.take(f"nic-{nic.name}", port.fd)
    if port.vhost_fd is not None:
        fds.take(f"nic-{nic.name}.vhost", port.vhost_fd)
