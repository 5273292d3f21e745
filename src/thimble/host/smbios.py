"""SMBIOS 3.6 tables as `/sys/firmware/dmi/tables/DMI` has them: memory modules and their error correction.

The one thing of DMI that the kernel does not give as files of their own. Pure: bytes in, values out. Tables
of real firmware lie; whatever does not fit is passed over, never an error.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from thimble.contract.hardware import MemoryModule

_ARRAY, _MODULE, _IPMI, _END = 16, 17, 38, 127
_ECC = {3: "none", 4: "parity", 5: "single-bit ECC", 6: "multi-bit ECC", 7: "CRC"}
_KINDS = {
    0x0F: "SDRAM", 0x12: "DDR", 0x13: "DDR2", 0x14: "DDR2 FB-DIMM", 0x18: "DDR3", 0x1A: "DDR4",
    0x1B: "LPDDR", 0x1C: "LPDDR2", 0x1D: "LPDDR3", 0x1E: "LPDDR4", 0x20: "HBM", 0x21: "HBM2", 0x22: "DDR5",
    0x23: "LPDDR5", 0x24: "HBM3", 0x07: "RAM",
}  # fmt: skip
_NOTHING = {"", "not specified", "unknown", "none", "no dimm", "not available", "n/a", "empty"}


class Structure(msgspec.Struct, frozen=True):
    """One table: its kind, its bytes from the header on, its texts."""

    kind: int
    data: bytes
    texts: tuple[str, ...]

    def text(self, at: int) -> str:
        """The text whose number stands at `at`; "" for none and for a vendor's placeholder."""
        number = self.data[at] if at < len(self.data) else 0
        found = self.texts[number - 1] if 0 < number <= len(self.texts) else ""
        return "" if found.lower() in _NOTHING else found

    def whole(self, at: int, size: int) -> int:
        """A little-endian number; 0 when the table ends before it."""
        piece = self.data[at : at + size]
        return int.from_bytes(piece, "little") if len(piece) == size else 0


def structures(table: bytes) -> Iterator[Structure]:
    """Every table up to the end mark, or as far as they are sound."""
    at = 0
    while at + 4 <= len(table):
        kind, length = table[at], table[at + 1]
        if length < 4 or at + length > len(table):
            return
        end = table.find(b"\0\0", at + length)
        if end < 0:
            return
        raw = table[at + length : end].split(b"\0") if end > at + length else []
        yield Structure(kind, table[at : at + length], tuple(_clean(text) for text in raw))
        if kind == _END:
            return
        at = end + 2


def modules(table: bytes) -> tuple[MemoryModule, ...]:
    """Every memory slot, in the firmware's order."""
    return tuple(_module(one) for one in structures(table) if one.kind == _MODULE)


def ecc(table: bytes) -> str:
    """How memory errors are corrected; "" when the firmware does not say."""
    found = [_ECC.get(one.whole(6, 1), "") for one in structures(table) if one.kind == _ARRAY]
    return next((word for word in found if word), "")


def has_controller(table: bytes) -> bool:
    """Does the firmware list a management controller (IPMI)?"""
    return any(one.kind == _IPMI for one in structures(table))


def _module(one: Structure) -> MemoryModule:
    size = _size(one)
    return MemoryModule(
        slot=one.text(0x10),
        bank=one.text(0x11),
        size_bytes=size,
        kind=_KINDS.get(one.whole(0x12, 1), "") if size else "",
        speed=_speed(one, 0x15, 0x54) if size else 0,
        configured_speed=_speed(one, 0x20, 0x58) if size else 0,
        vendor=one.text(0x17) if size else "",
        part=one.text(0x1A) if size else "",
        serial=one.text(0x18) if size else "",
    )


def _size(one: Structure) -> int:
    """0xFFFF: unknown; 0x7FFF: see the extended size, in MiB; else the top bit says KiB."""
    size = one.whole(0x0C, 2)
    if size in (0, 0xFFFF):
        return 0
    if size == 0x7FFF:
        return (one.whole(0x1C, 4) & 0x7FFFFFFF) << 20
    return (size & 0x7FFF) << (10 if size & 0x8000 else 20)


def _speed(one: Structure, at: int, extended: int) -> int:
    found = one.whole(at, 2)
    return one.whole(extended, 4) & 0x7FFFFFFF if found == 0xFFFF else found


def _clean(raw: bytes) -> str:
    return "".join(mark for mark in raw.decode("latin-1") if mark.isprintable()).strip()
