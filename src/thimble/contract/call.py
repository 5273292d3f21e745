"""One request, decoded and allowed: what every service method receives.

Convention: the verb `noun.verb` is `services["noun"].verb(call)`; it returns the verb's output type
(`Started` for tasks), or a `DryRun` when `call.dry_run`. It raises `Problem`, nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Generic, TypeVar

import msgspec

from thimble.contract.host import Role

Input = TypeVar("Input")


class Call(msgspec.Struct, Generic[Input], frozen=True, kw_only=True):
    """`path` and `query` come from the URL; `body` is an upload of `length` bytes (None: unknown)."""

    input: Input
    path: dict[str, str] = {}
    query: dict[str, str] = {}
    user: str = ""
    role: Role = Role.VIEWER
    dry_run: bool = False
    if_match: int | None = None  # the revision the client saw
    key: str = ""  # its idempotency key
    peer: str = ""  # its network address
    since: float = 0.0  # when its connection was made, in seconds since boot; 0: not known
    token: str = ""  # digest of the bearer token it came with
    body: AsyncIterator[bytes] | None = None
    length: int | None = None
