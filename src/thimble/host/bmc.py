"""Asks the management controller: what it is, where it answers, its sensors and its event log.

A whole answer takes seconds on real controllers: `probes` asks in a thread, seldom. The sensors' records
never change while the machine runs, so they are read once.
"""

from __future__ import annotations

from contextlib import suppress

from thimble.contract.hardware import Bmc, Sensor
from thimble.host import ipmi
from thimble.sys.ipmi import Socket

_APP, _SENSOR, _STORAGE, _TRANSPORT = 0x06, 0x04, 0x0A, 0x0C
#: At most so many of the event log's last entries, and of sensors.
EVENTS = 64
SENSORS = 128
_PIECE = 16


class Controller:
    """`ask` may be called again and again; it opens the device anew each time."""

    def __init__(self) -> None:
        self._records: tuple[ipmi.Analog, ...] | None = None

    def ask(self) -> tuple[Bmc, tuple[Sensor, ...]]:
        """Raises OSError when there is none or it does not answer."""
        with Socket() as bmc:
            device = bmc.ask(_APP, 0x01)
            if self._records is None:
                self._records = tuple(_records(bmc))
            names = {one.number: one.name for one in self._records}
            total, events = _events(bmc)
            address = _lan(bmc, 3)
            return (
                Bmc(
                    version=f"{device[2] & 0x7F}.{device[3] >> 4}{device[3] & 0xF}",
                    ipmi=f"{device[4] & 0xF}.{device[4] >> 4}",
                    manufacturer=int.from_bytes(device[6:9], "little") & 0xFFFFF,
                    product=int.from_bytes(device[9:11], "little"),
                    address=".".join(map(str, address)) if len(address) == 4 and any(address) else "",
                    mac=_lan(bmc, 5).hex(":"),
                    events_total=total,
                    events=tuple(ipmi.event(record, names) for record in events),
                ),
                tuple(_readings(bmc, self._records)),
            )


def _readings(bmc: Socket, records: tuple[ipmi.Analog, ...]) -> list[Sensor]:
    found = []
    for one in records:
        answer = b""
        with suppress(OSError):  # a sensor of a part that is off, or not there
            answer = bmc.ask(_SENSOR, 0x2D, bytes((one.number,)))
        found.append(ipmi.reading(one, answer))
    return found


def _lan(bmc: Socket, parameter: int) -> bytes:
    """A setting of the first LAN channel that has one; b"" when none has."""
    for channel in (1, 2, 8):
        with suppress(OSError):
            answer = bmc.ask(_TRANSPORT, 0x02, bytes((channel, parameter, 0, 0)))
            if len(answer) > 1:
                return answer[1:]
    return b""


def _events(bmc: Socket) -> tuple[int, list[bytes]]:
    """(how many there are, the last `EVENTS`)."""
    count = int.from_bytes(bmc.ask(_STORAGE, 0x40)[1:3], "little")
    found: list[bytes] = []
    following = 0
    for _ in range(count + 1):
        if following == 0xFFFF or not count:
            break
        answer = bmc.ask(_STORAGE, 0x43, bytes((0, 0)) + following.to_bytes(2, "little") + bytes((0, 0xFF)))
        following = int.from_bytes(answer[:2], "little")
        if len(answer) >= 18:
            found.append(answer[2:18])
    return count, found[-EVENTS:]


def _records(bmc: Socket) -> list[ipmi.Analog]:
    """The sensors the controller describes itself; none when it has no repository."""
    found: list[ipmi.Analog] = []
    following = 0
    with suppress(OSError):
        for _ in range(4 * SENSORS):
            if following == 0xFFFF or len(found) >= SENSORS:
                break
            following, record = _record(bmc, following)
            if (one := ipmi.analog(record)) is not None:
                found.append(one)
    return found


def _record(bmc: Socket, identity: int) -> tuple[int, bytes]:
    """(the next record's number, this one), read in pieces: few controllers give a whole one at once."""
    ticket = bmc.ask(_STORAGE, 0x22)[:2]
    following, record, wanted = 0xFFFF, b"", 5
    while len(record) < wanted:
        size = min(_PIECE, wanted - len(record))
        asked = ticket + identity.to_bytes(2, "little") + bytes((len(record), size))
        answer = bmc.ask(_STORAGE, 0x23, asked)
        if len(answer) <= 2:
            break
        following, record = int.from_bytes(answer[:2], "little"), record + answer[2:]
        if len(record) >= 5:
            wanted = 5 + record[4]
    return following, record
