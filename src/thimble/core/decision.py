"""What a pure `decide(...)` answers: do it (with a plan), nothing to do, or no (with every reason)."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from thimble.core.problem import Reason

Plan = TypeVar("Plan")


class Accept(msgspec.Struct, Generic[Plan], frozen=True):
    """Go ahead with `plan`."""

    plan: Plan


class Ignore(msgspec.Struct, frozen=True):
    """It is so already; `why` in words."""

    why: str


class Deny(msgspec.Struct, frozen=True):
    """Not possible, for all of `reasons`."""

    reasons: tuple[Reason, ...]
