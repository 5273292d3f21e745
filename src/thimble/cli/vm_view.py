"""VMs as rows and lines. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from thimble.cli.tables import Column, facts, table
from thimble.contract.vm import Vm, VmList
from thimble.core.units import MIB, show_seconds, show_size

COLUMNS = (
    Column("name", least=12),
    Column("state"),
    Column("cpus", right=True),
    Column("memory", right=True),
    Column("address", least=15),
    Column("note", least=8),
)


def listing(vms: VmList, *, width: int | None) -> str:
    """One row each; the note says why a VM is not as it should be."""
    rows = [
        (
            vm.name,
            str(vm.state),
            str(vm.vcpus),
            show_size(vm.memory_mib * MIB),
            ", ".join(vm.ip),
            vm.why,
        )
        for vm in vms.vms
    ]
    return table(COLUMNS, rows, width=width) if rows else "no VMs yet; `thimble vm create NAME` creates one"


def line(vm: Vm) -> str:
    """One VM in one line: `web1: running since 4.2 s, 2 vCPUs, 1 GiB, 10.0.0.5`."""
    parts = [str(vm.status.state)]
    if vm.status.why:
        parts[0] += f" ({vm.status.why})"
    parts += [f"{vm.vcpus} vCPU{'s' if vm.vcpus > 1 else ''}", show_size(vm.memory_mib * MIB)]
    parts += [ip for nic in vm.nics for ip in nic.ip]
    return f"{vm.name}: " + ", ".join(parts) + pending(vm)


def pending(vm: Vm) -> str:
    """The changes pending until a cold start, a line each."""
    return "".join(f"\n  at its next cold start: {change}" for change in vm.status.pending)


def details(vm: Vm, *, now: float) -> str:
    """Everything about one VM."""
    status = vm.status
    since = show_seconds(max(0.0, now - status.since)) if status.since else ""
    state = (
        f"{status.state}" + (f" for {since}" if since else "") + (f", {status.accel}" if status.accel else "")
    )
    return facts(
        [
            ("name", vm.name),
            ("id", f"{vm.id}, revision {vm.rev}"),
            ("description", vm.description),
            ("state", state),
            ("why", status.why),
            ("intent", str(vm.intent)),
            ("pending", "\n".join(status.pending)),
            ("restarts", str(status.restarts) if status.restarts else ""),
            ("CPU", f"{vm.vcpus} × {vm.cpu}"),
            ("memory", show_size(vm.memory_mib * MIB)),
            ("machine", f"{vm.machine_type or vm.machine}, {vm.firmware} firmware" + _direct(vm)),
            ("datastore", vm.datastore),
            ("disks", "\n".join(_disks(vm))),
            ("NICs", "\n".join(_nics(vm))),
            ("CD-ROMs", "\n".join(f"{drive.name}: {drive.image or 'empty'}" for drive in vm.cdroms)),
            ("devices", _devices(vm)),
            ("autostart", f"order {vm.autostart.order}" + _delay(vm) if vm.autostart.enabled else "no"),
            ("on crash", str(vm.on_crash)),
            ("host down", str(vm.host_shutdown)),
            ("QEMU", f"process {status.pid}" if status.pid else ""),
            ("possible", ", ".join(vm.allowed)),
            ("last output", status.last_output.strip()),
        ]
    )


def _direct(vm: Vm) -> str:
    if vm.direct is None:
        return ""
    parts = [f"kernel {vm.direct.kernel}"]
    parts += [f"initrd {vm.direct.initrd}"] if vm.direct.initrd else []
    parts += [vm.direct.cmdline] if vm.direct.cmdline else []
    return "\n" + "\n".join(parts)


def _disks(vm: Vm) -> Iterable[str]:
    for disk in vm.disks:
        only = ", read-only" if disk.read_only else ""
        yield f"{disk.name}: {show_size(disk.size_bytes)} {disk.format} on {disk.bus}{only}, {disk.volume}"


def _nics(vm: Vm) -> Iterable[str]:
    for nic in vm.nics:
        yield f"{nic.name}: {nic.mac} on {nic.switch}, {nic.model}" + "".join(f", {ip}" for ip in nic.ip)


def _devices(vm: Vm) -> str:
    names = ("rng", "balloon", "serial", "vga", "tablet", "guest_agent")
    return ", ".join(name.replace("_", " ") for name in names if getattr(vm, name))


def _delay(vm: Vm) -> str:
    return f", then {show_seconds(vm.autostart.delay_s)} of pause" if vm.autostart.delay_s else ""
