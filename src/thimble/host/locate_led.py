"""The lights of network ports (ethtool) and of disks' slots (SCSI enclosure services)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from thimble.core.problem import Code, Problem
from thimble.host import devices
from thimble.sys import disks, ethtool


class Light:
    """`blink` returns when it is over: call it in a thread. Raises OSError."""

    def __init__(self, name: str, blink: Callable[[float], None]) -> None:
        self._name, self.blink = name, blink

    def __str__(self) -> str:
        return self._name


def find(what: str, root: Path = Path("/")) -> Light:
    """The light of a port or a disk. Raises `Problem` NOT_FOUND or UNSUPPORTED."""
    for nic in devices.nics(root):
        if what.lower() in (nic.mac, nic.address) or what == nic.device:
            return _port(nic.mac, nic.device)
    device = disks.resolve(what, disks.all_disks(root / "sys/block"))
    known = {one.device: one for one in disks.all_disks(root / "sys/block")}
    if device not in known:
        raise Problem(
            Code.NOT_FOUND,
            f"there is no network port and no disk {what!r}",
            hint="`thimble host hardware` lists both, by what they are called here.",
        )
    file = devices.locate_file(root, Path(device).name)
    if file is None:
        raise Problem(
            Code.UNSUPPORTED,
            f"the slot of {what} has no light that can be switched",
            hint="Only enclosures with SCSI enclosure services have one. Read its serial number instead.",
        )
    return Light(f"disk {known[device].lasting_name}", lambda seconds: _locate(file, seconds))


def _port(mac: str, device: str) -> Light:
    return Light(f"port {mac}", lambda seconds: ethtool.blink(device, max(1, round(seconds))))


def _locate(file: Path, seconds: float) -> None:
    file.write_text("1")
    try:
        time.sleep(seconds)
    finally:
        file.write_text("0")
