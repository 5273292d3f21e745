"""What a disk says of its own health: NVMe's log 2, ATA's SMART, SCSI's informational exceptions.

Asked by the kernel's pass-through ioctls (linux/nvme_ioctl.h, scsi/sg.h), which may wait for the disk: call
it in a thread. A disk that sleeps is not woken. Decoding is apart and pure.
"""

from __future__ import annotations

import array
import fcntl
import os
import struct

from thimble.contract.hardware import Smart

_NVME_ADMIN = 0xC0484E41
_SG_IO = 0x2285
_NVME_WARNINGS = (
    "its spare blocks run out",
    "its temperature is out of range",
    "it is no longer reliable",
    "it has become read-only",
    "its volatile memory is no longer backed up",
    "its persistent memory has become unreliable",
)
_WEAR = (231, 233, 177, 202, 173)  # attributes whose value counts down from 100 as flash wears
_TIMEOUT_MS = 5000


class Asleep(OSError):
    """The disk stands still, and asking would start it."""


def ask(device: str, transport: str) -> Smart:
    """`transport` is nvme, sata or sas. Never raises: what went wrong is in `why`."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Smart(why=os.strerror(error.errno or 0))
    try:
        if transport == "nvme":
            return nvme(_nvme_log(descriptor))
        if transport == "sas":
            return scsi(_scsi(descriptor, bytes((0x4D, 0, 0x6F, 0, 0, 0, 0, 0, 252, 0)), 252)[0])
        return _ask_ata(descriptor)
    except Asleep:
        return Smart(why="it sleeps")
    except OSError as error:
        return Smart(why=f"it does not tell: {os.strerror(error.errno or 0)}")
    finally:
        os.close(descriptor)


def _ask_ata(descriptor: int) -> Smart:
    if _ata(descriptor, 0xE5)[0] == 0:  # CHECK POWER MODE: standby
        raise Asleep
    _, middle, high = _ata(descriptor, 0xB0, 0xDA)
    data = _scsi(descriptor, _ata_command(0xB0, 0xD0, protocol=4, flags=0x0E), 512)[0]
    return ata(data, failing=(middle, high) == (0xF4, 0x2C))


def nvme(log: bytes) -> Smart:
    """NVM Express 1.4, 5.14.1.2."""
    bits, kelvin = log[0], int.from_bytes(log[1:3], "little")
    critical = [words for number, words in enumerate(_NVME_WARNINGS) if bits >> number & 1]
    return Smart(
        passed=not bits,
        critical=tuple(critical),
        temperature=kelvin - 273.0 if kelvin else None,
        worn=log[5],
        spare=log[3],
        power_on_hours=int.from_bytes(log[128:144], "little"),
        media_errors=int.from_bytes(log[160:176], "little"),
    )


def ata(data: bytes, *, failing: bool) -> Smart:
    """ATA-8: 30 attributes of 12 bytes; what the raw numbers mean is the vendors' agreement."""
    values, raws = {}, {}
    for at in range(2, 362, 12):
        number = data[at]
        if number:
            values[number], raws[number] = data[at + 3], int.from_bytes(data[at + 5 : at + 11], "little")
    celsius = next((raws[n] & 0xFF for n in (194, 190) if n in raws), None)
    wear = next((values[n] for n in _WEAR if n in values), None)
    hours = raws.get(9)
    return Smart(
        passed=not failing,
        critical=("it predicts its own failure",) if failing else (),
        temperature=float(celsius) if celsius else None,
        worn=max(0, 100 - wear) if wear is not None else None,
        power_on_hours=hours & 0xFFFFFFFF if hours is not None else None,
        media_errors=raws.get(187, raws.get(198)),
    )


def scsi(page: bytes) -> Smart:
    """SPC-4, log page 2Fh: the additional sense code says whether it is well."""
    if len(page) < 10 or page[0] & 0x3F != 0x2F:
        return Smart(why="it does not tell")
    code, celsius = page[8], page[10] if len(page) > 10 else 0
    words = {0x5D: "it predicts its own failure", 0x0B: "it warns of itself"}.get(code)
    return Smart(
        passed=words is None,
        critical=(words,) if words else (),
        temperature=float(celsius) if 0 < celsius < 255 else None,
    )


def _nvme_log(descriptor: int) -> bytes:
    data = array.array("B", bytes(512))
    command = struct.pack(
        "=BBHIIIQQII6III",
        2, 0, 0, 0xFFFFFFFF, 0, 0, 0, data.buffer_info()[0], 0, 512,
        127 << 16 | 2, 0, 0, 0, 0, 0, _TIMEOUT_MS, 0,
    )  # fmt: skip
    status = fcntl.ioctl(descriptor, _NVME_ADMIN, bytearray(command))
    if status:
        raise OSError(5, f"NVMe status {status:#x}")
    return data.tobytes()


def _ata_command(command: int, feature: int = 0, *, protocol: int, flags: int) -> bytes:
    """ATA PASS-THROUGH (16), SAT-3."""
    middle, high = (0x4F, 0xC2) if command == 0xB0 else (0, 0)
    return bytes((0x85, protocol << 1, flags, 0, feature, 0, 1, 0, 0, 0, middle, 0, high, 0, command, 0))


def _ata(descriptor: int, command: int, feature: int = 0) -> tuple[int, int, int]:
    """A command without data; its (count, LBA middle, LBA high) as it answers. Raises OSError."""
    _, sense = _scsi(descriptor, _ata_command(command, feature, protocol=3, flags=0x20), 0)
    if sense[0] & 0x7F != 0x72 or sense[8] != 0x09:
        raise OSError(95, "no answer of the disk in it")
    return sense[13], sense[17], sense[19]


def _scsi(descriptor: int, command: bytes, length: int) -> tuple[bytes, bytes]:
    """(data from the disk, its sense data). Raises OSError."""
    data, sense = array.array("B", bytes(max(length, 1))), array.array("B", bytes(64))
    words = array.array("B", command)
    header = bytearray(
        struct.pack(
            "@iiBBHIPPPIIiPBBBBHHiII4x",
            ord("S"), -3 if length else -1, len(command), 64, 0, length,
            data.buffer_info()[0], words.buffer_info()[0], sense.buffer_info()[0],
            _TIMEOUT_MS, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        )
    )  # fmt: skip
    fcntl.ioctl(descriptor, _SG_IO, header)
    status, host = header[64], struct.unpack_from("H", header, 68)[0]
    checked = status == 2 and sense[0] & 0x7F == 0x72 and sense[1] & 0xF <= 1  # as asked: the registers
    if host or (status and not checked):
        raise OSError(5, f"SCSI status {status}, host {host}")
    return data.tobytes()[:length], sense.tobytes()
