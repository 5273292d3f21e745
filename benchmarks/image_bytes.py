"""How big the image is, per profile, as `thimble image inspect` counts."""

from __future__ import annotations

from benchmarks import built
from benchmarks.context import Context
from benchmarks.promise import Bound, Promised, Row

NAME = "image"
TITLE = "bytes of the image, per profile"
MB = 1e6
LIMITS = {"server": 52.0, "virtual": 44.0}


def measure(context: Context) -> list[Row]:
    return [_row(profile, built.sizes(profile, context.out, context.report)) for profile in LIMITS]


def _row(profile: str, sizes: built.Sizes) -> Row:
    return Row(
        promise=NAME,
        what=f"{profile}: kernel, RAM root, QEMU's firmware",
        unit="MB",
        ours=(sizes.counted / MB,),
        promised=Promised(bound=Bound.AT_MOST, limit=LIMITS[profile]),
        note=f"{sizes.apart / MB:.1f} MB of the makers' firmware and microcode besides; "
        f"thimble.efi is {sizes.total / MB:.1f} MB; in RAM it takes {sizes.in_ram / MB:.1f} MB",
    )
