"""From a record to QEMU's command line. Pure; its output is kept in golden files.

QEMU opens nothing of ours by path: disks, images, logs, /dev/kvm, taps and sockets come as descriptors, named
here by keys and numbered by whoever opened them (`Machinery.fds`). `disk-NAME`, `cd-NAME`, `nic-NAME` are
keys, QEMU's ids of the devices and names of the block nodes alike. The same dicts serve `-blockdev`,
`-device` and QMP's `blockdev-add`, `device_add`.
"""

from __future__ import annotations

import msgspec

from thimble.contract.vm import DiskBus, Firmware, Machine, NicModel
from thimble.storage.standalone import node_options
from thimble.vm.record import cpus, layout
from thimble.vm.record.spec import Definition, Disk, Nic

Json = dict[str, object]

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Machinery(msgspec.Struct, frozen=True, kw_only=True):
    """What the host gives. `fds`: key → descriptor; `share`: directories of QEMU's firmware and ROMs."""

    accel: str
    share: tuple[str, ...]
    fds: dict[str, int]
    credentials: tuple[str, ...] = ()  # their names; descriptors under `cred-NAME`
    qboot: str = ""  # firmware of microvms; QEMU's own choice when empty
    ports: int | None = None  # root ports, where they are not those of a fresh start
    incoming: bool = False  # it waits for the memory of a saved VM


def render(vm: Definition, given: Machinery) -> list[list[str]]:
    """The arguments after the program's name, in groups of one option with its value."""
    return [
        ["-name", f"guest={vm.name},debug-threads=on"],
        ["-uuid", vm.uuid],
        *(["-L", directory] for directory in given.share),
        ["-nodefaults"],
        ["-no-user-config"],
        ["-display", "none"],
        ["-sandbox", SANDBOX],
        ["-trace", "qemu_system_shutdown_request"],  # tells in the log why QEMU ended
        *_fdsets(given),
        *_machine(vm, given),
        *_memory_and_cpus(vm, given),
        *_control(vm, given),
        *_boot(vm, given),
        *_bridges(vm, layout.ports(vm) if given.ports is None else given.ports),
        *_small_devices(vm),
        *_disks(vm, given),
        *_nics(vm, given),
        *_credentials(vm, given),
        *([["-incoming", "defer"]] if given.incoming else []),
    ]


def _fdsets(given: Machinery) -> list[list[str]]:
    return [
        ["-add-fd", f"fd={given.fds[key]},set={number},opaque={key}"]
        for key, number in fdsets(given.fds).items()
    ]


def fdsets(fds: dict[str, int]) -> dict[str, int]:
    """Which descriptors QEMU reopens through `/dev/fdset/N`, and their N."""
    keys = [key for key in fds if key in _SET_KEYS or key.startswith(("disk-", "cd-"))]
    return {key: number for number, key in enumerate(keys, 1)}


_SET_KEYS = ("kvm", "serial.log", "firmware.code", "firmware.vars", "seed")


def _set(given: Machinery, key: str) -> str:
    return f"/dev/fdset/{fdsets(given.fds)[key]}"


def _machine(vm: Definition, given: Machinery) -> list[list[str]]:
    if vm.machine is Machine.MICROVM:
        # Its ACPI has no timer but KVM's clock: emulated, Linux would wait for ever to measure its own.
        acpi = "on" if given.accel == "kvm" else "off"
        options = f"microvm,acpi={acpi},pcie=off,rtc=on,isa-serial=on,usb=off"
        options += ",x-option-roms=off" if given.qboot else ""
    else:
        options = f"{vm.machine_type or 'q35'},hpet=off,vmport=off,smm=off,usb=off"
    if vm.firmware is Firmware.UEFI:
        options += ",pflash0=firmware-code,pflash1=firmware-vars"
    accel = f"kvm,device={_set(given, 'kvm')}" if given.accel == "kvm" else "tcg,thread=multi"
    groups = [["-machine", options], ["-accel", accel]]
    if vm.machine is Machine.MICROVM:
        groups.append(["-global", "virtio-mmio.force-legacy=false"])
    return groups


def _memory_and_cpus(vm: Definition, given: Machinery) -> list[list[str]]:
    return [
        ["-cpu", cpus.argument(vm.cpu, given.accel)],
        ["-smp", f"cpus={vm.vcpus},sockets=1,cores={vm.vcpus},threads=1"],
        ["-m", f"size={vm.memory_mib}M"],
        ["-rtc", "base=utc,driftfix=slew"] if vm.machine is Machine.Q35 else ["-rtc", "base=utc"],
    ]


def _control(vm: Definition, given: Machinery) -> list[list[str]]:
    groups = [
        ["-chardev", f"socket,id=qmp,fd={given.fds['qmp']},server=on,wait=off"],
        ["-mon", "chardev=qmp,mode=control"],
    ]
    if vm.serial:
        log = f"logfile={_set(given, 'serial.log')},logappend=on"
        groups += [
            ["-chardev", f"socket,id=serial0,fd={given.fds['serial']},server=on,wait=off,{log}"],
            ["-serial", "chardev:serial0"],
        ]
    if vm.guest_agent:
        groups.append(["-chardev", f"socket,id=qga,fd={given.fds['qga']},server=on,wait=off"])
    return groups


def _boot(vm: Definition, given: Machinery) -> list[list[str]]:
    if vm.firmware is Firmware.UEFI:
        code = blockdev("firmware-code", _set(given, "firmware.code"), "raw", read_only=True)
        variables = blockdev("firmware-vars", _set(given, "firmware.vars"), "raw", read_only=False)
        return [["-blockdev", _json(code)], ["-blockdev", _json(variables)], ["-boot", "menu=off,strict=on"]]
    if vm.firmware is Firmware.BIOS or vm.direct is None:
        return [["-boot", "menu=off,strict=on"]]
    groups = [["-kernel", f"/proc/self/fd/{given.fds['kernel']}"]]
    if vm.direct.initrd:
        groups.append(["-initrd", f"/proc/self/fd/{given.fds['initrd']}"])
    cmdline = vm.direct.cmdline
    if vm.machine is Machine.MICROVM and given.accel == "tcg":
        # It has no timer to measure the CPU's clock with; on a busy host Linux tries for ever.
        cmdline = f"{cmdline} tsc_early_khz=2000000".lstrip()
    if cmdline:
        groups.append(["-append", cmdline])
    if vm.machine is Machine.MICROVM and given.qboot:
        groups.append(["-bios", given.qboot])
    return groups


def _bridges(vm: Definition, ports: int) -> list[list[str]]:
    """The root ports that hot-pluggable devices sit behind; several share a slot of the root complex."""
    if vm.machine is Machine.MICROVM:
        return []
    groups = []
    for number in range(ports):
        slot, function = layout.port_place(number)
        port: Json = {"driver": "pcie-root-port", "id": f"rp{number}", "bus": "pcie.0"}
        port |= {"addr": f"0x{slot:x}.0x{function:x}", "chassis": number + 1, "port": number, "io-reserve": 0}
        if function == 0:
            port["multifunction"] = True
        groups.append(["-device", _json(port)])
    return groups


def _small_devices(vm: Definition) -> list[list[str]]:
    at = vm.addresses
    groups: list[list[str]] = []
    if "panic" in at:
        groups.append(["-device", _json({"driver": "pvpanic-pci", "id": "panic"} | layout.bus(at["panic"]))])
    if vm.vga:
        groups.append(["-device", _json({"driver": "VGA", "id": "vga"} | layout.bus(at["vga"]))])
    if vm.tablet:
        groups.append(["-device", _json({"driver": "qemu-xhci", "id": "usb"} | layout.bus(at["usb"]))])
        groups.append(["-device", _json({"driver": "usb-tablet", "id": "tablet"} | layout.bus(at["tablet"]))])
    if vm.rng:
        groups.append(["-object", "rng-builtin,id=entropy"])
        groups.append(["-device", _json(_virtio("rng", "rng", at["rng"]) | {"rng": "entropy"})])
    if vm.balloon:
        balloon = _virtio("balloon", "balloon", at["balloon"])
        balloon |= {"deflate-on-oom": True, "free-page-reporting": True}
        groups.append(["-device", _json(balloon)])
    if vm.guest_agent:
        groups.append(["-device", _json(_virtio("serial", "channels", at["channels"]))])
        port: Json = {"driver": "virtserialport", "id": "qga", "bus": "channels.0", "nr": 1, "chardev": "qga"}
        groups.append(["-device", _json(port | {"name": "org.qemu.guest_agent.0"})])
    return groups


def _disks(vm: Definition, given: Machinery) -> list[list[str]]:
    groups: list[list[str]] = []
    boot = 1
    for disk in vm.disks:
        key = f"disk-{disk.name}"
        node = blockdev(key, _set(given, key), disk.format, read_only=disk.read_only)
        device = disk_device(disk, vm.addresses[key])
        groups += [["-blockdev", _json(node)], ["-device", _json(device | {"bootindex": boot})]]
        boot += 1
    for cdrom in vm.cdroms:
        key = f"cd-{cdrom.name}"
        drive: Json = {"driver": "ide-cd", "id": key, "bootindex": boot} | layout.bus(vm.addresses[key])
        if cdrom.image is not None:
            groups.append(["-blockdev", _json(blockdev(key, _set(given, key), "raw", read_only=True))])
            drive["drive"] = key
        groups.append(["-device", _json(drive)])
        boot += 1
    if layout.wants_seed_disk(vm):
        groups.append(["-blockdev", _json(blockdev("seed", _set(given, "seed"), "raw", read_only=True))])
        device = _virtio("blk", "seed", vm.addresses["seed"]) | {"drive": "seed", "serial": "seed"}
        groups.append(["-device", _json(device)])
    return groups


def _nics(vm: Definition, given: Machinery) -> list[list[str]]:
    groups: list[list[str]] = []
    boot = len(vm.disks) + len(vm.cdroms) + 1
    for number, nic in enumerate(vm.nics):
        key = f"nic-{nic.name}"
        vhost = given.fds.get(f"{key}.vhost")
        device = nic_device(nic, vm.addresses[key])
        if vm.machine is Machine.Q35:
            device["bootindex"] = boot + number
        groups.append(
            ["-netdev", _json(netdev(nic, str(given.fds[key]), None if vhost is None else str(vhost)))]
        )
        groups.append(["-device", _json(device)])
    return groups


def _credentials(vm: Definition, given: Machinery) -> list[list[str]]:
    groups = []
    for name in given.credentials:
        path = f"/proc/self/fd/{given.fds[f'cred-{name}']}"
        if vm.machine is Machine.MICROVM:
            groups.append(["-fw_cfg", f"name=opt/io.systemd.credentials/{name},file={path}"])
        else:
            groups.append(["-smbios", f"type=11,path={path}"])
    return groups


def blockdev(node: str, path: str, format: str, *, read_only: bool) -> Json:
    """A block node over a descriptor; for `-blockdev` and `blockdev-add`. Ours stand alone."""
    file: Json = {"driver": "file", "filename": path, "read-only": read_only}
    if not read_only:
        file["discard"] = "unmap"
    top: Json = {"driver": str(format), "node-name": node, "read-only": read_only, "file": file}
    top |= node_options(format)
    if not read_only:
        top["discard"] = "unmap"
    return top


def disk_device(disk: Disk, address: str) -> Json:
    """The device of a disk; for `-device` and `device_add`."""
    key = f"disk-{disk.name}"
    more: Json = {"drive": key, "serial": disk.name[:20]}
    if disk.bus is DiskBus.SATA:
        return {"driver": "ide-hd", "id": key} | layout.bus(address) | more
    if disk.bus is DiskBus.NVME:
        return {"driver": "nvme", "id": key} | layout.bus(address) | more
    return _virtio("blk", key, address) | more


def nic_device(nic: Nic, address: str) -> Json:
    """The device of a NIC; for `-device` and `device_add`. No option ROM: UEFI has its own driver."""
    key = f"nic-{nic.name}"
    more: Json = {"netdev": key, "mac": nic.mac}
    if nic.model is NicModel.E1000E:
        return {"driver": "e1000e", "id": key, "romfile": ""} | layout.bus(address) | more
    device = _virtio("net", key, address) | more
    return device if device["driver"] == "virtio-net-device" else device | {"romfile": ""}


def netdev(nic: Nic, fd: str, vhost_fd: str | None) -> Json:
    """The host's end of a NIC; `fd` is a number, or a name given by `getfd`."""
    found: Json = {"type": "tap", "id": f"nic-{nic.name}", "fd": fd}
    if vhost_fd is not None:
        found |= {"vhost": True, "vhostfd": vhost_fd}
    return found


def _virtio(kind: str, id: str, address: str) -> Json:
    transport = "device" if address.startswith("mmio/") else "pci"
    return {"driver": f"virtio-{kind}-{transport}", "id": id} | layout.bus(address)


def _json(value: Json) -> str:
    return msgspec.json.encode(value).decode()


def argv(program: list[str], groups: list[list[str]]) -> list[str]:
    """The whole command line."""
    return [*program, *(word for group in groups for word in group)]
