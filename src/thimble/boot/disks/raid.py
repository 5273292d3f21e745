"""Which members of a mirror may be used together. Pure; doing it is raidset.py.

The freshest member decides (most events, then lowest place). Another one is
    used        when both believe each other to be in sync
    joined      when the freshest went on without it and it did nothing alone: it is brought up to date
    left out    when it too went on alone: it holds changes that only a person can judge
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .blocks import BlockDevice


class AssemblyPlan:
    """`use` to start with, `join` afterwards; devices."""

    __slots__ = ("join", "use", "warnings")

    def __init__(self) -> None:
        self.use: list[str] = []
        self.join: list[str] = []
        self.warnings: list[str] = []


def plan(members: list[BlockDevice]) -> AssemblyPlan:
    """What to do with the members of one set, at least one."""
    found = AssemblyPlan()
    ordered = sorted(members, key=lambda one: (one["place"] < 0, -one["events"], one["place"]))
    freshest, *others = ordered
    found.use.append(freshest["device"])
    for one in others:
        trusts = freshest["place"] in one["places"]
        if trusts and one["place"] in freshest["places"]:
            found.use.append(one["device"])
        elif trusts or one["place"] < 0:
            found.join.append(one["device"])
            found.warnings.append(f"the mirror {one['device']} is out of sync and is being resynchronised")
        else:
            found.warnings.append(
                f"{one['device']} is left out (split brain): it and its mirror {freshest['device']} each ran "
                "alone and have different changes; erase the one you do not want"
            )
    missing = freshest["members"] - len(members)
    if missing > 0:
        found.warnings.append(
            f"the mirror is degraded: {freshest['device']} runs with {len(members)} of "
            f"{freshest['members']} disks"
        )
    return found
