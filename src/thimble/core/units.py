"""Sizes and times in words, and back. Binary units are IEC (KiB = 1024), decimal ones SI (MB = 10⁶)."""

from __future__ import annotations

from thimble.core.problem import Code, Problem

KIB = 1024
MIB = 1024**2
GIB = 1024**3
TIB = 1024**4

_FACTORS = {
    "": 1, "b": 1,
    "k": KIB, "kib": KIB, "kb": 1000,
    "m": MIB, "mib": MIB, "mb": 1000**2,
    "g": GIB, "gib": GIB, "gb": 1000**3,
    "t": TIB, "tib": TIB, "tb": 1000**4,
}  # fmt: skip


def parse_size(text: str) -> int:
    """Bytes of `10G`, `512MiB`, `1.5t`; a bare letter is binary, as for qemu-img.

    Raises `Problem` INVALID.
    """
    word = text.strip().lower()
    digits = word.rstrip("abcdefghijklmnopqrstuvwxyz").rstrip()
    factor = _FACTORS.get(word[len(digits) :].strip())
    plain = set(digits) <= set("0123456789.")  # int() and float() would take more: 1_000, +5, ٣
    try:
        number = float(digits) if "." in digits else int(digits)
    except ValueError:
        number = -1
    if factor is None or not plain or number < 0 or number == float("inf"):
        raise Problem(
            Code.INVALID, f"{text!r} is not a size", hint="Write a number and a unit, such as 10G or 512MiB."
        )
    return int(number * factor)


def show_size(count: int) -> str:
    """Three significant digits in IEC units: `512 MiB`, `1.5 GiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1000 or unit == "TiB":
            return (
                f"{value:.0f} {unit}"
                if unit == "B" or value >= 100 or value == int(value)
                else f"{value:.1f} {unit}"
            )
        value /= 1024
    raise AssertionError


def show_seconds(seconds: float) -> str:
    """`850 ms`, `4.2 s`, `3 min 5 s`, `2 d 4 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for big, small, size in (("d", "h", 86400), ("h", "min", 3600), ("min", "s", 60)):
        if whole >= size:
            rest = whole % size // {"h": 3600, "min": 60, "s": 1}[small]
            return f"{whole // size} {big} {rest} {small}" if rest else f"{whole // size} {big}"
    raise AssertionError
