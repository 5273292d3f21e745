"""Power-on → ready from each medium by each firmware, beside a kernel that QEMU hands over; bytes of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.context import Context
from benchmarks.machine import MEMORY_MIB, VCPUS, Moment, alternate, now, tried
from benchmarks.promise import Row
from thimble.image import manifest
from thimble.lab.command import spec_of_image
from thimble.lab.server import LabServer
from thimble.lab.spec import LabFirmware, LabMedium

NAME = "media"
TITLE = "power-on → ready, and bytes, of each medium"
TIMEOUT_S = 300.0
READY = b"thimble: ready in "
PEER = (LabMedium.DIRECT, LabFirmware.DIRECT)
WAYS = (
    PEER,
    (LabMedium.IMG, LabFirmware.UEFI),
    (LabMedium.IMG, LabFirmware.BIOS),
    (LabMedium.ISO, LabFirmware.UEFI),
    (LabMedium.ISO, LabFirmware.BIOS),
    (LabMedium.EFI, LabFirmware.UEFI),
)
Way = tuple[LabMedium, LabFirmware]


def measure(context: Context) -> list[Row]:
    """All ways in turns."""
    folder = context.image.where
    samples: dict[Way, list[Moment]] = {way: [] for way in WAYS}
    alternate(context.rounds, [_side(context, folder, way, into) for way, into in samples.items()])
    return [*times(samples), *sizes(manifest.read(folder)["files"])]


def times(samples: dict[Way, list[Moment]]) -> list[Row]:
    """Context: nothing is promised. Pure."""
    rows = []
    for way, moments in samples.items():
        if way == PEER:
            continue
        for what, pick in (("wall", _wall), ("processor time", _cpu)):
            rows.append(
                Row(
                    promise=NAME,
                    what=f"{way[0]} by {way[1]}: {what}",
                    unit="s",
                    ours=tuple(map(pick, moments)),
                    peer="kernel handed over",
                    theirs=tuple(map(pick, samples[PEER])),
                )
            )
    return rows


def sizes(files: dict[str, dict[str, int]]) -> list[Row]:
    """Pure."""
    return [
        Row(
            promise=NAME,
            what=f"{name}: bytes",
            unit="MB",
            ours=(entry["bytes"] / 1e6,),
            note=f"{entry.get('used_bytes', entry['bytes']) / 1e6:.1f} MB of it used",
        )
        for name, entry in sorted(files.items())
    ]


def _wall(moment: Moment) -> float:
    return moment.wall_s


def _cpu(moment: Moment) -> float:
    return moment.cpu_s


def _side(context: Context, folder: Path, way: Way, into: list[Moment]) -> Callable[[], None]:
    medium, firmware = way

    def once() -> Moment:
        spec = spec_of_image(
            folder, name=f"bench-{medium}-{firmware}", cpus=VCPUS, memory_mib=MEMORY_MIB,
            medium=medium, firmware=firmware,
        )  # fmt: skip
        server = LabServer.up(spec)
        try:
            server.wait_for(READY, TIMEOUT_S)
            return now(server)
        finally:
            server.down(force=True)

    def turn() -> None:
        moment = tried(once, context.report)
        into.append(moment)
        context.say(f"{medium} by {firmware}: ready after {moment.wall_s:.1f} s, {moment.cpu_s:.1f} CPU s")

    return turn
