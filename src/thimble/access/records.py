"""What is kept of users and of programs' tokens."""

from __future__ import annotations

from typing import Annotated

import msgspec

from thimble.contract.common import Secret
from thimble.contract.host import Role


class UserRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: Role
    password: Annotated[str, Secret]  # as passwords.hashed gives it


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    user: str
    role: Role
    digest: Annotated[str, Secret]
    expires: float
