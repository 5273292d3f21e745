"""The machine as text. Pure but for the names of PCI devices, which this computer may have."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

from thimble.cli.tables import Column, facts, table
from thimble.contract.hardware import DiskInfo, Hardware, Health, LogLine, Sensor, Sensors, Smart, Time
from thimble.core.units import show_seconds, show_size

_PCI_IDS = (Path("/usr/share/misc/pci.ids"), Path("/usr/share/hwdata/pci.ids"))
#: (vendor, device) → name; (vendor, "") → the vendor's.
Names = Mapping[tuple[str, str], str]


def hardware(found: Hardware, *, pci: bool, names: Names) -> str:
    parts = [_machine(found), _modules(found), _disks(found.disks), _nics(found)]
    return "\n\n".join(part for part in (*parts, _pci(found, names) if pci else "") if part)


def _machine(found: Hardware) -> str:
    system, bios, cpus = found.system, found.firmware, found.cpus
    weak = [name for name, word in cpus.vulnerabilities.items() if word.startswith("Vulnerable")]
    nodes = [f"{node.id}: CPUs {node.cpus}, {show_size(node.memory_bytes)}" for node in found.numa]
    return facts(
        [
            ("system", _words(system.vendor, system.product, system.version)),
            ("serial number", system.serial),
            ("board", _words(system.board_vendor, system.board, system.board_serial)),
            ("firmware", _words(bios.kind.upper(), bios.vendor, bios.version, bios.date)),
            ("CPUs", f"{cpus.packages} × {cpus.model}, {cpus.cores} cores, {cpus.threads} threads"),
            ("microcode", cpus.microcode),
            ("features", " ".join(cpus.features)),
            ("vulnerable to", ", ".join(weak)),
            ("memory", _words(show_size(found.memory.total_bytes), found.memory.ecc)),
            ("NUMA nodes", "\n".join(nodes)),
            ("not readable", "\n".join(found.problems)),
        ]
    )


def _modules(found: Hardware) -> str:
    columns = [Column(name) for name in ("slot", "size", "kind", "MT/s", "maker", "part", "serial")]
    rows = []
    for one in found.memory.modules:
        if one.size_bytes:
            speed = str(one.configured_speed or one.speed or "")
            size = show_size(one.size_bytes)
            rows.append((one.slot, size, one.kind, speed, one.vendor, one.part, one.serial))
    return table(columns, rows) if rows else ""


def _nics(found: Hardware) -> str:
    columns = [Column(name) for name in ("port", "device", "link", "driver", "PCI", "use")]
    rows = [
        (one.mac, one.device, _link(link=one.link, speed=one.speed_mbps), one.driver, one.pci, one.use)
        for one in found.nics
    ]
    return table(columns, rows) if rows else ""


def _pci(found: Hardware, names: Names) -> str:
    columns = [Column(name) for name in ("PCI", "kind", "id", "driver", "group", "name")]
    rows = []
    for one in found.pci:
        group = "" if one.iommu_group is None else str(one.iommu_group)
        name = _words(names.get((one.vendor, ""), ""), names.get((one.vendor, one.device), ""))
        rows.append((one.address, one.kind, f"{one.vendor}:{one.device}", one.driver, group, name))
    return table(columns, rows)


def _disks(disks: tuple[DiskInfo, ...]) -> str:
    columns = [Column(name) for name in ("disk", "device", "size", "by", "model", "health")]
    rows = [(d.name, d.device, show_size(d.size_bytes), d.transport, d.model, smart(d.smart)) for d in disks]
    return table(columns, rows)


def smart(found: Smart | None) -> str:
    """A disk's health on one line."""
    if found is None:
        return ""
    if found.why:
        return found.why
    words = ["well" if found.passed else ", ".join(found.critical) or "failing"]
    if found.temperature is not None:
        words.append(f"{found.temperature:.0f} °C")
    if found.worn is not None:
        words.append(f"{found.worn} % worn")
    if found.media_errors:
        words.append(f"{found.media_errors} media errors")
    if found.power_on_hours is not None:
        words.append(f"{found.power_on_hours} h on")
    return ", ".join(words)


def sensors(found: Sensors) -> str:
    parts = []
    if found.sensors:
        columns = [
            Column("sensor"),
            Column("chip"),
            Column("value", right=True),
            Column("limits"),
            Column("state"),
        ]
        parts.append(table(columns, [_sensor(one) for one in found.sensors]))
    if found.bmc is not None:
        bmc = found.bmc
        parts.append(
            facts(
                [
                    ("BMC", f"firmware {bmc.version}, IPMI {bmc.ipmi}, maker {bmc.manufacturer}"),
                    ("address", _words(bmc.address, bmc.mac)),
                    ("event log", f"{bmc.events_total} entries"),
                ]
            )
        )
        if bmc.events:
            columns = [Column("entry"), Column("time"), Column("sensor"), Column("what"), Column("level")]
            rows = [
                (str(one.id), _moment(one.time) if one.time else "", one.sensor, one.what, one.level)
                for one in bmc.events
            ]
            parts.append(table(columns, rows))
    parts += [f"warning: {line}" for line in found.problems]
    return "\n\n".join(parts) or "no sensors found"


def _sensor(one: Sensor) -> tuple[str, ...]:
    limits = [
        f"{name} {value:g}" for name, value in (("warn", one.warn), ("critical", one.critical)) if value
    ]
    value = f"{one.value:g} {one.unit}" if one.value is not None else "–"
    return one.name, one.chip, value, ", ".join(limits), one.why or one.level


def health(found: Health, *, now: float) -> str:
    """`ok`, or the level and a line or two for each reason."""
    lines = [f"health: {found.level}"]
    for one in found.findings:
        lines.append(
            f"  {one.level}: {one.component}: {one.reason} (for {show_seconds(max(0.0, now - one.since))})"
        )
        if one.hint:
            lines.append(f"      {one.hint}")
    return "\n".join(lines)


def time(found: Time) -> str:
    if not found.managed:
        state = "managed by another operating system"
    else:
        state = "synchronized" if found.synchronized else f"not synchronized: {found.why or 'no server yet'}"
    head = facts(
        [
            ("time", _moment(found.now) + " UTC"),
            ("clock", state),
            ("source", f"{found.source}, stratum {found.stratum}" if found.source else ""),
            ("off by", f"{found.offset_s * 1000:+.3f} ms" if found.offset_s is not None else ""),
            (
                "at most",
                f"{found.error_s * 1000:.3f} ms" if found.error_s is not None and found.synchronized else "",
            ),
        ]
    )
    if not found.sources:
        return head
    columns = [Column(name) for name in ("server", "state", "stratum", "answers", "offset")]
    rows = [
        (
            s.address or "(not resolved)",
            s.state,
            str(s.stratum),
            f"{s.reach} of 8",
            f"{s.offset_s * 1000:+.3f} ms",
        )
        for s in found.sources
    ]
    return f"{head}\n\n{table(columns, rows)}"


def log_line(line: LogLine) -> str:
    level = "" if line.level in ("info", "debug", "notice") else f" {line.level}"
    return f"{_moment(line.time, milli=True)} {line.source}{level}: {line.text}"


def pci_names() -> Names:
    """What pci.ids here calls vendors and devices; nothing without the file."""
    found: dict[tuple[str, str], str] = {}
    path = next((path for path in _PCI_IDS if path.is_file()), None)
    vendor = ""
    for line in path.read_text(errors="replace").splitlines() if path else ():
        if line.startswith("C "):
            break
        if line.startswith("\t\t") or not line or line[0] == "#":
            continue
        name, _, words = line.strip().partition("  ")
        vendor = vendor if line[0] == "\t" else name
        found[(vendor, name if line[0] == "\t" else "")] = words
    return found


def _link(*, link: bool, speed: int | None) -> str:
    if not link:
        return "no link"
    return "link" if speed is None else f"{speed / 1000:g} Gbit/s" if speed >= 1000 else f"{speed} Mbit/s"


def _words(*words: str) -> str:
    return " ".join(filter(None, words))


def _moment(seconds: float, *, milli: bool = False) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    text = moment.strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{moment.microsecond // 1000:03d}" if milli else text
