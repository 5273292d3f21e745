"""The kernel's device messages. Pure."""

from __future__ import annotations


def parse(message: bytes) -> dict[str, str]:
    """Netlink uevent `add@/devices/…` → its variables; empty for anything else."""
    head, _, rest = message.partition(b"\0")
    if b"@" not in head:
        return {}
    return parse_lines(rest.replace(b"\0", b"\n").decode("utf-8", "replace"))


def parse_lines(text: str) -> dict[str, str]:
    """The `uevent` file of a device in sysfs: one KEY=value per line."""
    return dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
