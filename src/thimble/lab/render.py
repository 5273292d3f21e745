"""From a spec to QEMU's command line.

Pure; golden-tested. Paths of the server's own files are relative to its home.
"""

from __future__ import annotations

import hashlib

import msgspec

from thimble.lab.spec import Bus, LabDisk, LabFirmware, LabNic, ServerSpec


class LabAccel(msgspec.Struct, frozen=True):
    """How the server's processors run, and why so."""

    name: str
    why: str


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is made with: QEMU (with the words before its first option), OVMF."""

    qemu: tuple[str, ...]
    ovmf_code: str
    ovmf_vars: str
    ovmf_secure: str = ""  # code that enforces Secure Boot; the variables are the same, empty ones


def accel(*, kvm_opens: bool, cpuinfo: str) -> LabAccel:
    """KVM only on a real one: /dev/kvm alone may be a paravirtual variant on which ordinary kernels hang."""
    flags = set(next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "").split())
    if not flags & {"vmx", "svm"}:
        return LabAccel("tcg", "the processor shows neither vmx nor svm")
    if not kvm_opens:
        return LabAccel("tcg", "/dev/kvm cannot be opened")
    return LabAccel("kvm", "the processor has " + ("vmx" if "vmx" in flags else "svm"))


def argv(spec: ServerSpec, tools: Tools, chosen: LabAccel) -> list[str]:
    """The whole command line."""
    words = [
        *tools.qemu,
        *("-name", f"thimble-lab-{spec.name}"),
        "-nodefaults",
        "-no-user-config",
        *("-display", "none"),
        *("-machine", "q35,smm=on" if spec.secure_boot else "q35"),
        *_processor(spec, chosen),
        *("-smp", str(spec.cpus)),
        *("-m", str(spec.memory_mib)),
        *("-rtc", f"base={spec.clock or 'utc'}"),
        *("-uuid", uuid_of(spec.name)),
        *("-chardev", "socket,id=serial,path=serial.sock,server=on,wait=off,logfile=serial.log,logappend=on"),
        *("-serial", "chardev:serial"),
        *("-qmp", "unix:qmp.sock,server=on,wait=off"),
        *("-device", "virtio-rng-pci"),
    ]
    if spec.display:
        words += ["-device", "VGA"]
    if spec.watchdog:
        words += ["-device", "i6300esb", "-action", "watchdog=reset"]
    if spec.bmc:
        words += ["-device", "ipmi-bmc-sim,id=bmc", "-device", "isa-ipmi-kcs,bmc=bmc"]
    words += _firmware(spec, tools)
    if any(disk.bus is Bus.USB for disk in spec.disks):
        words += ["-device", "qemu-xhci,id=usb"]
    for number, disk in enumerate(spec.disks):
        words += _disk(disk, disk_name(number, disk), number)
    for number, nic in enumerate(spec.nics):
        words += _nic(spec.name, nic, number, spec.firmware)
    words += ["-smbios", f"type=1,serial={spec.name}"]
    for text in spec.oem_strings:
        words += ["-smbios", "type=11,value=" + text.replace(",", ",,")]
    return words


def disk_name(number: int, disk: LabDisk) -> str:
    """The file of a disk, relative to the server's home unless it was given and is written to."""
    if disk.keep:
        return f"disk{number}.qcow2"
    return disk.file or f"disk{number}.raw"


def mac_of(server: str, number: int) -> str:
    digest = hashlib.sha256(f"{server}/{number}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def uuid_of(server: str) -> str:
    digest = hashlib.sha256(f"lab/{server}".encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"


def wire_port(name: str) -> int:
    """The UDP port of a wire's multicast group."""
    return 20000 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:2], "big") % 20000


def _processor(spec: ServerSpec, chosen: LabAccel) -> list[str]:
    if chosen.name == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    model = "EPYC,+svm,+npt" if spec.nested else "EPYC,-svm"
    return ["-accel", "tcg,thread=multi", "-cpu", model]


def _firmware(spec: ServerSpec, tools: Tools) -> list[str]:
    if spec.firmware is LabFirmware.DIRECT:
        words = ["-kernel", spec.kernel]
        if spec.initrd:
            words += ["-initrd", spec.initrd]
        return [*words, "-append", spec.append]
    if spec.firmware is LabFirmware.BIOS:
        return []
    code = tools.ovmf_secure if spec.secure_boot else tools.ovmf_code
    words = [
        *("-drive", f"if=pflash,format=raw,readonly=on,file={_quoted(code)}"),
        *("-drive", "if=pflash,format=raw,file=vars.fd"),
    ]
    if spec.secure_boot:  # only the firmware itself, in system management mode, may write its variables
        words += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    if spec.efi:
        words += _disk(LabDisk(file="esp.raw", order=1), "esp.raw", "esp")
    return words


def _disk(disk: LabDisk, file: str, number: int | str) -> list[str]:
    node = f"disk{number}"
    read_only = ",read-only=on" if disk.read_only else ""
    form = "qcow2" if disk.keep else disk.format
    # A lab disk may vanish with the power cut it is there to rehearse: writes need not reach the metal.
    below = f"{node}-file"
    words = [
        "-blockdev",
        f"driver=file,node-name={below},filename={_quoted(file)},cache.no-flush=on{read_only}",
    ]
    if disk.forgets:
        words += ["-blockdev", f"driver=file,node-name={node}-log,filename={_quoted(file)}.writes"]
        words += [
            "-blockdev",
            f"driver=blklogwrites,node-name={node}-noted,file={below},log={node}-log,log-super-update-interval=1",
        ]
        below = f"{node}-noted"
    words += ["-blockdev", f"driver={form},node-name={node},file={below},discard=unmap{read_only}"]
    order = f",bootindex={disk.order - 1}" if disk.order else ""
    if disk.sector != 512:
        order += f",logical_block_size={disk.sector},physical_block_size={disk.sector}"
    for device in _device(disk, node, number):
        words += ["-device", device]
    return [*words[:-1], words[-1] + order]


def _device(disk: LabDisk, node: str, number: int | str) -> list[str]:
    """The device, after what it hangs on. A USB CD drive is a SCSI one, as in a BMC's virtual media."""
    if disk.bus is Bus.USB and disk.cd:
        return [f"usb-bot,bus=usb.0,id={node}-usb", f"scsi-cd,bus={node}-usb.0,drive={node}"]
    drive = "ide-cd" if disk.cd else "ide-hd"
    return {
        # Merged, requests may have one piece more than the log beside a forgetful disk can take.
        Bus.VIRTIO: [f"virtio-blk-pci,drive={node}" + (",request-merging=off" if disk.forgets else "")],
        Bus.NVME: [f"nvme,drive={node},serial={node}"],
        Bus.AHCI: [f"{drive},drive={node},bus=ide.{number}"],
        Bus.USB: [f"usb-storage,bus=usb.0,drive={node},removable=on"],
    }[disk.bus]


def _nic(server: str, nic: LabNic, number: int, firmware: LabFirmware) -> list[str]:
    if nic.wire:
        net = f"socket,id=net{number},mcast=230.84.77.66:{wire_port(nic.wire)},localaddr=127.0.0.1"
    else:
        net = f"user,id=net{number}" + "".join(f",hostfwd=tcp:127.0.0.1:0-:{port}" for port in nic.forwards)
    device = f"{nic.model},netdev=net{number},mac={nic.address or mac_of(server, number)}"
    if nic.boot:
        folder, _, file = nic.boot.rpartition("/")
        net += f",tftp={_quoted(folder)},bootfile={_quoted(file)}"
    if nic.boot or nic.http or nic.pxe:
        device += ",bootindex=0"
    # UEFI has a driver of its own; iPXE is in the NIC's ROM, and slow to find that nobody answers.
    rom = "" if (nic.boot or nic.pxe) and firmware is LabFirmware.BIOS else ",romfile="
    words = ["-netdev", net, "-device", device + rom]
    for version in ("4", "6") if nic.http else ():
        words += ["-fw_cfg", f"name=opt/org.tianocore/IPv{version}PXESupport,string=n"]
    return words


def _quoted(path: str) -> str:
    """QEMU's option syntax doubles commas."""
    return path.replace(",", ",,")
