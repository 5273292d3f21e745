"""What a pure `decide(...)` answers: do it (with a plan), nothing to do, or no (with every blocker).

    plan set                   go ahead
    plan None, no blockers     it is so already; `note` says why
    blockers                   not possible, for all of them

Nobody but `dispatch.run` turns one into a dry run, a refusal or a deed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

import msgspec

from thimble.core.problem import Problem, Reason

Plan = TypeVar("Plan")

#: The plan of a verb whose request says it all.
GO = True


class Decision(msgspec.Struct, Generic[Plan], frozen=True, kw_only=True):
    """`effects`: what would happen, each in words. `refusal`, `hint`: of the problem its blockers become."""

    plan: Plan | None = None
    effects: tuple[str, ...] = ()
    blockers: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()
    note: str = ""
    refusal: str = ""
    hint: str = ""

    @property
    def possible(self) -> bool:
        """Also when there is nothing to do."""
        return not self.blockers

    def against(self, blockers: Iterable[Reason], *, hint: str = "") -> Decision[Plan]:
        """The same with more that stands in the way; `hint` is for the first that does."""
        found = tuple(blockers)
        if not found:
            return self
        shown = self.hint if self.blockers else hint or self.hint
        return msgspec.structs.replace(self, blockers=(*self.blockers, *found), hint=shown)

    def refuse(self) -> None:
        """Raise one `Problem` naming all blockers, if there are any; its code is the first one's."""
        if self.blockers:
            first = self.blockers[0]
            raise Problem(first.code, self.refusal or first.message, hint=self.hint, reasons=self.blockers)


def blocked(*blockers: Reason, refusal: str = "", hint: str = "") -> Decision[Plan]:
    """Not possible, for all of `blockers`."""
    return Decision(blockers=blockers, refusal=refusal, hint=hint)


def unless(
    blockers: Iterable[Reason], decision: Decision[Plan], *, refusal: str = "", hint: str = ""
) -> Decision[Plan]:
    """`decision`, or why not: what cannot be done has no effects."""
    found = tuple(blockers)
    return blocked(*found, refusal=refusal, hint=hint) if found else decision


def nothing(note: str) -> Decision[Plan]:
    """It is so already; `note` in words."""
    return Decision(note=note)
