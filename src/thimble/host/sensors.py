"""The kernel's hardware monitors: temperature, fans, voltages, power (hwmon/sysfs-interface.rst).

A sensor that fails says so in `why`; the others stand. May wait for a device: call it in a thread.
"""

from __future__ import annotations

import re
from pathlib import Path

from thimble.contract.hardware import Level, Sensor
from thimble.sys.sysfs import entries, link_name, number, word

#: prefix → (kind, unit, divisor)
_KINDS = {
    "temp": ("temperature", "°C", 1000.0),
    "fan": ("fan", "rpm", 1.0),
    "in": ("voltage", "V", 1000.0),
    "curr": ("current", "A", 1000.0),
    "power": ("power", "W", 1_000_000.0),
}
_INPUT = re.compile(r"(temp|fan|in|curr|power)(\d+)_(input|average)")


def chips(root: Path = Path("/")) -> tuple[Path, ...]:
    """Every monitor; asks none."""
    return tuple(entries(root / "sys/class/hwmon"))


def sensors(chip: Path) -> tuple[Sensor, ...]:
    """Every input of a monitor."""
    found, name = [], chip_name(chip)
    names = [path.name for path in entries(chip)]
    for match in filter(None, map(_INPUT.fullmatch, names)):
        if match[3] == "average" and f"{match[1]}{match[2]}_input" in names:
            continue
        found.append(_sensor(chip, name, match[1], match[2], match[3]))
    return tuple(found)


def chip_name(chip: Path) -> str:
    """`coretemp`, or `nvme nvme0`: the monitor and the device it belongs to, where that is one of many."""
    name, device = word(chip / "name"), link_name(chip / "device")
    return f"{name} {device}" if name in ("nvme", "drivetemp", "jc42") and device else name


def _sensor(chip: Path, chip_name: str, kind: str, index: str, suffix: str) -> Sensor:
    words, unit, divisor = _KINDS[kind]
    base = f"{kind}{index}"

    def scaled(what: str) -> float | None:
        found = number(chip / f"{base}_{what}")
        return None if found is None else round(found / divisor, 3)

    value, why = None, ""
    try:
        value = round(int((chip / f"{base}_{suffix}").read_text()) / divisor, 3)
    except (OSError, ValueError) as error:
        why = str(getattr(error, "strerror", None) or "it gives no number")
    warn, critical = scaled("max"), scaled("crit")
    return Sensor(
        name=word(chip / f"{base}_label") or base,
        chip=chip_name,
        kind=words,
        value=value,
        unit=unit,
        warn=warn,
        critical=critical,
        level=level(kind, value, warn, critical, _alarms(chip, base)),
        why=why,
    )


def _alarms(chip: Path, base: str) -> frozenset[str]:
    """Which of the chip's own alarms ring."""
    return frozenset(
        what
        for what in ("crit_alarm", "fault", "alarm", "lcrit_alarm")
        if number(chip / f"{base}_{what}") == 1
    )


def level(
    kind: str, value: float | None, warn: float | None, critical: float | None, alarms: frozenset[str]
) -> Level:
    """Only temperatures are judged by their limits: those of voltages and fans are often left unset or wrong.

    A limit of 0 or less, or beyond 150 °C, is one that nobody set.
    """
    if kind == "temp" and value is not None:
        if critical and 0 < critical <= 150 and value >= critical:
            return Level.CRITICAL
        if warn and 0 < warn <= 150 and value >= warn:
            return Level.WARNING
    if kind == "temp" and alarms & {"crit_alarm"}:
        return Level.CRITICAL
    return Level.WARNING if kind in ("temp", "fan") and "fault" in alarms else Level.OK
