"""Which shared libraries an ELF file needs; pure. Only 64-bit little-endian, which is all there is here."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRTAB = 1, 5


def is_elf(data: bytes) -> bool:
    return data.startswith(b"\x7fELF\x02\x01")


def needed(data: bytes) -> tuple[str, ...]:
    """The DT_NEEDED names, in order; empty for a static program or something that is not ELF."""
    if not is_elf(data):
        return ()
    (start,) = struct.unpack_from("<Q", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    loads, dynamic = [], None
    for number in range(count):
        kind, _, offset, address, _, size, _, _ = struct.unpack_from("<IIQQQQQQ", data, start + 56 * number)
        if kind == _LOAD:
            loads.append((address, offset, size))
        elif kind == _DYNAMIC:
            dynamic = (offset, size)
    if dynamic is None:
        return ()
    entries = [
        struct.unpack_from("<QQ", data, dynamic[0] + 16 * number) for number in range(dynamic[1] // 16)
    ]
    strings = next((value for tag, value in entries if tag == _STRTAB), None)
    if strings is None:
        return ()
    base = next(
        strings - address + offset for address, offset, size in loads if address <= strings < address + size
    )
    return tuple(_text(data, base + value) for tag, value in entries if tag == _NEEDED)


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def closure(roots: Iterable[bytes], read: Callable[[str], bytes]) -> tuple[str, ...]:
    """Every library name reached from `roots`, each once; `read(name)` gives its bytes or raises KeyError."""
    found: list[str] = []
    queue = [name for data in roots for name in needed(data)]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        found.append(name)
        queue.extend(needed(read(name)))
    return tuple(sorted(found))
