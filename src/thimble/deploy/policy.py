"""How this host is updated where a request does not say: one record, made by the API or the host document.

<state>/deploy/policy.json
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
from msgspec import UnsetType

from thimble.contract.deploy import Guests, PolicyChange, Reboot, RollbackRequest, UpdatePolicy, UpdateRequest
from thimble.core.problem import Code, Problem, Reason
from thimble.state.store import Collection

ID = "policy"
_URL = re.compile(r"https?://[^\s/]+(/\S*)?")


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """How the host goes into another slot, and what becomes of its VMs."""

    vms: Guests
    reboot: Reboot
    guest_timeout_s: float


class Policy:
    """The record, and what it says where a request does not."""

    def __init__(self, state: Path, *, durable: bool) -> None:
        self._records: Collection[UpdatePolicy] = Collection(
            UpdatePolicy, noun="update policy", durable=durable
        )
        self._records.add_root("", state / "deploy")
        #: Held from the decision to the commit of a change.
        self.turn = asyncio.Lock()

    @property
    def value(self) -> UpdatePolicy:
        found = self._records.find(ID)
        return found.value if found else UpdatePolicy()

    async def commit(self, value: UpdatePolicy) -> None:
        """Make it durable. Raises `Problem`."""
        await self._records.commit(ID, value)

    def image(self, request: UpdateRequest) -> str:
        """Raises `Problem` INVALID when nobody ever said which image."""
        image = self.value.url if isinstance(request.image, UnsetType) else request.image
        if not image:
            raise Problem(
                Code.INVALID,
                "no image is named, and this host does not know where its updates are",
                hint="Name a file or a URL, or say `url` in [update] of the host document.",
            )
        return image

    def restart(self, request: UpdateRequest | RollbackRequest) -> Restart:
        vms, reboot = request.vms, request.reboot
        return Restart(
            vms=self.value.vms if isinstance(vms, UnsetType) else vms,
            reboot=self.value.reboot if isinstance(reboot, UnsetType) else reboot,
            guest_timeout_s=request.guest_timeout_s,
        )


def changed(old: UpdatePolicy, wanted: PolicyChange) -> UpdatePolicy:
    """The policy with what is asked of it."""
    asked = {
        field: value
        for field in UpdatePolicy.__struct_fields__
        if not isinstance(value := getattr(wanted, field), UnsetType)
    }
    return msgspec.structs.replace(old, **asked)


def url_reasons(url: str) -> list[Reason]:
    """Why `url` is not where updates are."""
    if not url or _URL.fullmatch(url):
        return []
    return [Reason(message="this is no address such as https://host/thimble.efi", path="$.url")]


def words(old: UpdatePolicy, new: UpdatePolicy) -> list[str]:
    """What changes."""
    found = []
    for field in UpdatePolicy.__struct_fields__:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            found.append(f"sets {field} of updates to {after or 'nothing'}")
    return found
