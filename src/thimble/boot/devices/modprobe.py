"""What the kernel calls when it wants a module (`/proc/sys/kernel/modprobe`): `modprobe -q -- NAME`."""

from __future__ import annotations

import sys

from .drivers import load, load_table


def main() -> None:
    """Loads the module named last on the command line."""
    table = load_table()
    problems = load(table, table.resolve(sys.argv[-1]))
    sys.exit(1 if problems else 0)
