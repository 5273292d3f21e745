"""What is kept of the host itself, and what its service knows of its surroundings."""

from __future__ import annotations

from pathlib import Path

import msgspec

from thimble.host.hardware import Accel


class HostRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = ""
    syslog: str = ""


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What app.py knows of the surroundings and does not change while we run. `durable`: does the state
    survive a reboot?
    """

    hosted: bool
    accel: Accel
    state: Path
    run: Path
    started: float  # clock.since_boot() when the agent's process began; 0 in the image: the kernel's start
    certificate_sha256: str
    durable: bool = True
