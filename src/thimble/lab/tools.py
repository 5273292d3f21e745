"""Where a server's QEMU and firmware come from: the toolbox; and what this machine's processor can do."""

from __future__ import annotations

import os
from pathlib import Path

from thimble.image import toolbox
from thimble.image.progress import Report, silent
from thimble.image.toolbox import Toolbox
from thimble.lab import render
from thimble.lab.render import LabAccel, Tools


def find(report: Report = silent) -> tuple[Tools, Toolbox]:
    """QEMU 10 and OVMF; made if missing."""
    box = toolbox.ensure(report)
    tools = Tools(
        qemu=tuple(box.argv("qemu-system-x86_64")),
        ovmf_code=str(box.path("usr/share/OVMF/OVMF_CODE_4M.fd")),
        ovmf_vars=str(box.path("usr/share/OVMF/OVMF_VARS_4M.fd")),
        ovmf_secure=str(box.path("usr/share/OVMF/OVMF_CODE_4M.secboot.fd")),
    )
    return tools, box


def accel() -> LabAccel:
    """KVM or TCG, as `render.accel` decides."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
        opens = True
    except OSError:
        opens = False
    return render.accel(kvm_opens=opens, cpuinfo=Path("/proc/cpuinfo").read_text(errors="replace"))
