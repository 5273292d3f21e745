"""The clock: what the kernel says of it (adjtimex(2)), and chronyd by its command socket.

chronyd's protocol (candm.h of chrony, version 6) is not promised to stay; the image has the chronyd it was
written for, and a test asks it. Answers that are not understood leave the kernel's word alone. `chronyc` with
its libraries would be ten times this file.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
from pathlib import Path

from thimble.contract.hardware import Time, TimeSource

SOCKET = Path("/run/chrony/chronyd.sock")
_UNSYNC = 0x40
_TRACKING, _SOURCES, _SOURCE = 33, 14, 15
_REPLY = {_TRACKING: 5, _SOURCES: 2, _SOURCE: 3}
_STATES = ("selected", "nonselectable", "falseticker", "jittery", "candidate", "selectable")


class Timex(ctypes.Structure):
    """struct timex (linux/timex.h), 64 bit."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("more", ctypes.c_long * 32),
    )


def kernel() -> tuple[bool, float]:
    """(is the clock synchronized, its maximum error in seconds). Raises OSError."""
    asked = Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(asked)) < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")
    return not asked.status & _UNSYNC, asked.maxerror / 1e6


def ask(now: float, *, managed: bool, path: Path = SOCKET, timeout: float = 2.0) -> Time:
    """Everything known; blocks at most a few `timeout`s."""
    synchronized, error = kernel()
    plain = Time(now=now, synchronized=synchronized, managed=managed, error_s=round(error, 6))
    if not managed:
        return plain
    try:
        with Socket(path, timeout) as chronyd:
            return _with_chronyd(plain, chronyd)
    except (OSError, ValueError, struct.error) as error:
        why = getattr(error, "strerror", None) or str(error)
        return Time(now=now, synchronized=synchronized, managed=True, error_s=plain.error_s,
                    why=f"chronyd does not answer: {why}")  # fmt: skip


def _with_chronyd(plain: Time, chronyd: Socket) -> Time:
    reference, server, stratum, leap, offset, delay, dispersion = tracking(chronyd.ask(_TRACKING))
    asked = [
        source(chronyd.ask(_SOURCE, struct.pack("!i", number)))
        for number in range(min(struct.unpack("!I", chronyd.ask(_SOURCES)[:4])[0], 32))
    ]
    sources = tuple(one for one in asked if one.address)
    known = bool(reference) and leap != 3
    return Time(
        now=plain.now,
        synchronized=known,
        managed=True,
        source=server if known else "",
        stratum=stratum if known else None,
        offset_s=offset if known else None,
        error_s=round(delay / 2 + dispersion, 9) if known else plain.error_s,
        sources=sources,
        why="" if known else _waiting(sources),
    )


def _waiting(sources: tuple[TimeSource, ...]) -> str:
    if not sources:
        return "the names of the time servers are not resolved yet"
    return "not settled yet" if any(one.reach for one in sources) else "no time server has been heard yet"


def tracking(body: bytes) -> tuple[int, str, int, int, float, float, float]:
    """(reference, its address, stratum, leap status, offset, root delay, root dispersion): RPY_Tracking."""
    reference, raw, family, stratum, leap = struct.unpack_from("!I16sHxxHH", body)
    numbers = [real(number) for number in struct.unpack_from("!9I", body, 40)]
    return reference, address(raw, family), stratum, leap, numbers[0], numbers[6], numbers[7]


def source(body: bytes) -> TimeSource:
    """RPY_Source_Data."""
    raw, family, _, stratum, state, _, _, reach, _, _, measured, deviation = struct.unpack_from(
        "!16sHxxhHHHHHIIII", body
    )
    words = _STATES[state] if state < len(_STATES) else "unknown"
    return TimeSource(
        address=address(raw, family),
        state=words if reach else "unreachable",
        stratum=stratum,
        reach=(reach & 0xFF).bit_count(),
        offset_s=real(measured),
        error_s=real(deviation),
    )


def address(raw: bytes, family: int) -> str:
    """IPAddr: 1 IPv4, 2 IPv6, 3 a number in place of an address not resolved yet."""
    if family == 1:
        return str(ipaddress.IPv4Address(raw[:4]))
    return str(ipaddress.IPv6Address(raw)) if family == 2 else ""


def real(raw: int) -> float:
    """chrony's 32-bit float: 7 bits of exponent, 25 of coefficient, both signed."""
    exponent, coefficient = raw >> 25, raw & 0x1FFFFFF
    exponent -= 128 if exponent >= 64 else 0
    coefficient -= 1 << 25 if coefficient >= 1 << 24 else 0
    return float(coefficient * 2.0 ** (exponent - 25))


class Socket:
    """A question at a time to chronyd; its own socket lies beside chronyd's, for the answer."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._own = path.with_name(f"thimble.{os.getpid()}.{id(self)}.sock")
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.settimeout(timeout)
        try:
            self._line.bind(str(self._own))
            self._own.chmod(0o666)  # chronyd answers as its own user; the directory is closed to others
            self._line.connect(str(path))
        except OSError:
            self.__exit__()
            raise
        self._number = 0

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()
        self._own.unlink(missing_ok=True)

    def ask(self, command: int, data: bytes = b"") -> bytes:
        """The body of the answer. Raises OSError or ValueError."""
        self._number += 1
        head = struct.pack("!BBBBHHIII", 6, 1, 0, 0, command, 0, self._number, 0, 0)
        self._line.send((head + data).ljust(256, b"\0"))
        while True:
            answer = self._line.recv(1024)
            version, kind, _, _, echoed, reply, status, number = struct.unpack_from("!BBBBHHH6xI", answer)
            if number == self._number:
                break
        if (version, kind, echoed) != (6, 2, command) or status or reply != _REPLY[command]:
            raise ValueError(f"it answers {status} in another way than this version understands")
        return answer[28:]
