"""Pressure stall information (Documentation/accounting/psi.rst): who had to wait, and how much."""

from __future__ import annotations

from pathlib import Path

from thimble.contract.host import Pressure


def read(root: Path = Path("/")) -> dict[str, Pressure]:
    """By resource: cpu, memory, io; empty on a kernel without."""
    found = {}
    for name in ("cpu", "memory", "io"):
        try:
            text = (root / "proc/pressure" / name).read_text()
        except OSError:
            continue
        rows = {line.split()[0]: _row(line) for line in text.splitlines() if line}
        zero = (0.0, 0.0, 0.0)
        found[name] = Pressure(some=rows.get("some", zero), full=rows.get("full", zero))
    return found


def _row(line: str) -> tuple[float, float, float]:
    given = dict(word.split("=", 1) for word in line.split()[1:])
    return float(given["avg10"]), float(given["avg60"]), float(given["avg300"])
