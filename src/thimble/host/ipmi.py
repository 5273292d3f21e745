"""What a management controller's bytes mean: sensors (SDR), event log (SEL). Pure; [x]: of IPMI 2.0."""

from __future__ import annotations

import msgspec

from thimble.contract.hardware import BmcEvent, Level, Sensor

_UNITS = {
    1: ("temperature", "°C"),
    4: ("voltage", "V"),
    5: ("current", "A"),
    6: ("power", "W"),
    18: ("fan", "rpm"),
}
_SENSOR_TYPES = {
    0x01: "temperature", 0x02: "voltage", 0x03: "current", 0x04: "fan", 0x05: "chassis", 0x07: "processor",
    0x08: "power supply", 0x09: "power unit", 0x0A: "cooling", 0x0C: "memory", 0x0D: "drive slot",
    0x0F: "firmware", 0x10: "event log", 0x12: "system event", 0x13: "critical interrupt", 0x14: "button",
    0x19: "chip set", 0x1D: "system boot", 0x1E: "boot error", 0x20: "operating system", 0x21: "slot",
    0x22: "ACPI power state", 0x23: "watchdog", 0x28: "management subsystem", 0x29: "battery",
    0x2B: "version change",
}  # fmt: skip
#: Event type 01h: offset → (words, level) [42.1]
_THRESHOLDS = {
    0: ("below its lower limit", Level.WARNING), 2: ("below its lower critical limit", Level.CRITICAL),
    4: ("so low that damage is near", Level.CRITICAL), 7: ("above its upper limit", Level.WARNING),
    9: ("above its upper critical limit", Level.CRITICAL),
    11: ("so high that damage is near", Level.CRITICAL),
}  # fmt: skip
#: Event type 6Fh: (sensor type, offset) → (words, level) [42.2]; what is not here is information.
_SPECIFIC = {
    (0x05, 0): ("the chassis was opened", Level.WARNING),
    (0x07, 0): ("internal error", Level.CRITICAL),
    (0x07, 1): ("too hot, stopped", Level.CRITICAL),
    (0x07, 5): ("configuration error", Level.CRITICAL),
    (0x07, 8): ("disabled", Level.WARNING),
    (0x07, 10): ("throttled", Level.WARNING),
    (0x08, 0): ("present", Level.OK),
    (0x08, 1): ("failed", Level.CRITICAL),
    (0x08, 2): ("will fail", Level.WARNING),
    (0x08, 3): ("input lost", Level.CRITICAL),
    (0x08, 6): ("configuration error", Level.WARNING),
    (0x09, 0): ("powered off", Level.OK),
    (0x09, 4): ("power lost", Level.WARNING),
    (0x09, 5): ("soft power control failed", Level.WARNING),
    (0x09, 6): ("failed", Level.CRITICAL),
    (0x0C, 0): ("corrected memory error", Level.WARNING),
    (0x0C, 1): ("uncorrectable memory error", Level.CRITICAL),
    (0x0C, 2): ("parity error", Level.CRITICAL),
    (0x0C, 4): ("module disabled", Level.WARNING),
    (0x0C, 5): ("too many corrected errors: no longer counted", Level.WARNING),
    (0x0D, 0): ("present", Level.OK),
    (0x0D, 1): ("failed", Level.CRITICAL),
    (0x0D, 2): ("will fail", Level.WARNING),
    (0x0F, 0): ("error at power-on", Level.WARNING),
    (0x10, 2): ("cleared", Level.OK),
    (0x10, 4): ("full", Level.WARNING),
    (0x10, 5): ("almost full", Level.WARNING),
    (0x13, 4): ("PCI parity error", Level.CRITICAL),
    (0x13, 5): ("PCI system error", Level.CRITICAL),
    (0x13, 8): ("uncorrectable bus error", Level.CRITICAL),
    (0x13, 10): ("fatal bus error", Level.CRITICAL),
    (0x23, 1): ("it reset the machine", Level.WARNING),
    (0x23, 2): ("it powered the machine off", Level.WARNING),
    (0x23, 3): ("it power cycled the machine", Level.WARNING),
    (0x29, 0): ("low", Level.WARNING),
    (0x29, 1): ("failed", Level.CRITICAL),
}


class Analog(msgspec.Struct, frozen=True, kw_only=True):
    """A full sensor record [43.1]: how its readings are converted, and its limits as raw readings."""

    number: int
    name: str
    units: tuple[str, str]
    signed: int  # 0 unsigned, 1 one's complement, 2 two's
    m: int
    b: int
    r_exp: int
    b_exp: int
    readable: int  # which limits can be read, a bit each
    limits: bytes  # upper non-recoverable, critical, non-critical; lower the same

    def value(self, raw: int) -> float:
        """[36.3]"""
        if self.signed and raw & 0x80:
            raw = raw - 255 if self.signed == 1 else raw - 256
        return round((self.m * raw + self.b * 10.0**self.b_exp) * 10.0**self.r_exp, 3)


def analog(record: bytes) -> Analog | None:
    """None for records that are no analog, linear sensors of the controller itself."""
    if len(record) < 48 or record[3] != 0x01 or record[20] >> 6 == 3 or record[23] & 0x7F:
        return None
    units = _UNITS.get(record[21])
    if units is None:
        return None
    length = record[47] & 0x1F
    return Analog(
        number=record[7],
        name=record[48 : 48 + length].decode("latin-1").strip("\0 ") or f"sensor {record[7]}",
        units=units,
        signed=record[20] >> 6,
        m=_signed(record[24] | (record[25] & 0xC0) << 2, 10),
        b=_signed(record[26] | (record[27] & 0xC0) << 2, 10),
        r_exp=_signed(record[29] >> 4, 4),
        b_exp=_signed(record[29] & 0xF, 4),
        readable=record[18],
        limits=record[36:42],
    )


def reading(one: Analog, answer: bytes) -> Sensor:
    """A sensor with what Get Sensor Reading [35.14] said."""
    kind, unit = one.units
    ready = len(answer) >= 2 and not answer[1] & 0x20 and answer[1] & 0x40
    value = one.value(answer[0]) if ready else None
    # bits of `readable` [43.1, byte 19]: 3 upper non-critical, 4 upper critical; of the state the same
    state = answer[2] if ready and len(answer) > 2 else 0
    found = Level.CRITICAL if state & 0b110110 else Level.WARNING if state & 0b001001 else Level.OK
    return Sensor(
        name=one.name,
        chip="bmc",
        kind=kind,
        value=value,
        unit=unit,
        warn=one.value(one.limits[2]) if one.readable & 8 else None,
        critical=one.value(one.limits[1]) if one.readable & 16 else None,
        level=found,
        why="" if ready else "the controller has no reading of it",
    )


def event(record: bytes, names: dict[int, str]) -> BmcEvent:
    """An entry of the SEL [32.1]. `names`: of sensors, by their number."""
    identity, kind = int.from_bytes(record[0:2], "little"), record[2]
    time = float(int.from_bytes(record[3:7], "little"))
    if kind != 0x02:
        words = f"record of the vendor's kind {kind:#04x}: {record[3:16].hex()}"
        stamp = time if kind < 0xE0 and time > 0x20000000 else 0.0
        return BmcEvent(id=identity, time=stamp, sensor="", what=words, asserted=True, level=Level.OK)
    sensor, offset, asserted = record[10], record[13] & 0xF, not record[12] & 0x80
    words, level = meaning(sensor, record[12] & 0x7F, offset)
    return BmcEvent(
        id=identity,
        time=time if time > 0x20000000 else 0.0,  # below: seconds since the controller started
        sensor=names.get(record[11]) or f"{_SENSOR_TYPES.get(sensor, 'sensor')} {record[11]}",
        what=words if asserted else f"no longer: {words}",
        asserted=asserted,
        level=level if asserted else Level.OK,
    )


def meaning(sensor: int, kind: int, offset: int) -> tuple[str, Level]:
    """What an event of this kind says, and how bad it is."""
    if kind == 0x01 and offset in _THRESHOLDS:
        return _THRESHOLDS[offset]
    if kind == 0x6F and (sensor, offset) in _SPECIFIC:
        return _SPECIFIC[sensor, offset]
    return f"{_SENSOR_TYPES.get(sensor, f'sensor type {sensor:#04x}')} event {kind:#04x}/{offset}", Level.OK


def standing(events: tuple[BmcEvent, ...]) -> tuple[BmcEvent, ...]:
    """What is still so: bad events that were not taken back later, the last of each kind."""
    found: dict[tuple[str, str], BmcEvent] = {}
    for one in events:
        what = one.what.removeprefix("no longer: ")
        if not one.asserted:
            found.pop((one.sensor, what), None)
        elif one.level is not Level.OK:
            found[one.sensor, what] = one
    return tuple(found.values())


def _signed(raw: int, bits: int) -> int:
    return raw - (1 << bits) if raw >> (bits - 1) else raw
