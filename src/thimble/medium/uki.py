"""A unified kernel image, read: which sections it has and where. Pure; the caller reads the file.

Format: PE/COFF (Microsoft's PE format specification), sections as the UAPI group's UKI
specification names them.
"""

from __future__ import annotations

import struct

import msgspec

from thimble.core.problem import Code, Problem

#: Enough of the file's beginning to hold all headers.
HEAD_BYTES = 4096
SECTOR = 512
_AMD64 = 0x8664
_CERTIFICATES = 4  # index of the security entry among the data directories
_NEEDED = (".linux", ".initrd", ".cmdline", ".osrel")


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Where in the file a section's content lies, in bytes."""

    offset: int
    size: int


class Uki(msgspec.Struct, frozen=True, kw_only=True):
    """`signed` says that a signature is there, not that it is good."""

    sections: dict[str, Section]
    signed: bool

    def has_loader(self) -> bool:
        """Whether it carries the loaders an installation needs."""
        return ".loader" in self.sections


def parse(head: bytes, length: int) -> Uki:
    """The UKI whose file begins with `head` and is `length` bytes long.

    Raises `Problem` INVALID when it is no UKI for x86-64, or when its end is missing.
    """
    try:
        return _parse(head, length)
    except struct.error:
        raise _bad("its headers are damaged") from None


def _parse(head: bytes, length: int) -> Uki:
    if head[:2] != b"MZ":
        raise _bad("it is no EFI program")
    (start,) = struct.unpack_from("<I", head, 0x3C)
    if head[start : start + 4] != b"PE\0\0":
        raise _bad("it is no EFI program")
    machine, count = struct.unpack_from("<HH", head, start + 4)
    if machine != _AMD64:
        raise _bad(f"it is for another kind of processor (machine {machine:#x}, not x86-64)")
    (optional,) = struct.unpack_from("<H", head, start + 20)
    certificates = struct.unpack_from("<II", head, start + 24 + 112 + 8 * _CERTIFICATES)
    table = start + 24 + optional
    if table + 40 * count > len(head):
        raise _bad("its headers are damaged")
    sections = dict(_section(head, table + 40 * number) for number in range(count))
    missing = [name for name in _NEEDED if name not in sections]
    if missing:
        raise _bad(f"it has no {', '.join(missing)}: it is an EFI program, but no unified kernel image")
    end = max(sum(certificates), *(item.offset + item.size for item in sections.values()))
    if end > length:
        raise _bad(f"it is cut off: {length} bytes of at least {end}")
    return Uki(sections=sections, signed=certificates[1] > 0)


def _section(head: bytes, at: int) -> tuple[str, Section]:
    name = head[at : at + 8].rstrip(b"\0").decode("ascii", "replace")
    virtual, _, raw, offset = struct.unpack_from("<IIII", head, at + 8)
    return name, Section(offset=offset, size=min(virtual, raw))


def os_release(text: str) -> dict[str, str]:
    """The fields of an `.osrel` section (os-release(5))."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def command_line(section: bytes) -> str:
    """The words of a `.cmdline` section."""
    return section.rstrip(b"\0").decode("utf-8", "replace").strip()


def build_of(command_line: str) -> str:
    """The build a command line belongs to (`thimble.build=`), or nothing."""
    words = [
        word.removeprefix("thimble.build=")
        for word in command_line.split()
        if word.startswith("thimble.build=")
    ]
    return words[-1] if words else ""


def _bad(why: str) -> Problem:
    return Problem(
        Code.INVALID, f"this is no Thimble image: {why}", hint="Take the thimble.efi of a build, whole."
    )
