"""From words to a rehearsal: images, server, scenario."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thimble.image.progress import Report
from thimble.lab.command import spec_of_image
from thimble.lab.spec import LabFirmware, ServerSpec
from thimble.rehearsal import pair
from thimble.rehearsal.apply import Apply
from thimble.rehearsal.image_server import ImageServer, ServedImage
from thimble.rehearsal.install import Install
from thimble.rehearsal.run import rehearse
from thimble.rehearsal.scenario import Scenario
from thimble.rehearsal.update import Update

KINDS = ("update", "install", "apply")
MEMORY_MIB = 1536


def cuts(
    kind: str,
    built: Path,
    *,
    count: int,
    seed: int,
    firmware: LabFirmware,
    keep: bool,
    say: Callable[[str], None],
    report: Report,
) -> dict[str, Any]:
    """Rehearse `kind` with `count` cuts on a server called `cuts-KIND-FIRMWARE`; the summary."""
    spec = spec_of_image(built, name=f"cuts-{kind}-{firmware}", memory_mib=MEMORY_MIB)
    with tempfile.TemporaryDirectory(prefix="thimble-cuts.") as scratch:
        scenario: Scenario
        if kind == "apply":
            scenario = Apply(spec)
        elif kind == "install":
            certificate, first, _ = _served(built, Path(scratch), report)
            scenario = Install(spec, first, certificate, firmware)
        else:
            scenario = update(spec, built, Path(scratch), firmware, report)
        return rehearse(scenario, count=count, seed=seed, say=say, keep=keep)


def update(spec: ServerSpec, built: Path, scratch: Path, firmware: LabFirmware, report: Report) -> Update:
    """Updates to and fro between two builds of this image; `scratch` has to stay."""
    certificate, first, second = _served(built, scratch, report)
    return Update(spec, (first, second), certificate, firmware)


def _served(built: Path, scratch: Path, report: Report) -> tuple[Path, ServedImage, ServedImage]:
    certificate = pair.make(built, scratch, report)
    image_server = ImageServer(scratch)
    first, second = (image_server.image(name) for name in pair.NAMES)
    return certificate, first, second
