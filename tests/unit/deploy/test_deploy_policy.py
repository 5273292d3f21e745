"""How a host is updated where a request does not say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from thimble.contract.deploy import (
    Guests,
    PolicyChange,
    Reboot,
    RollbackRequest,
    UpdatePolicy,
    UpdateRequest,
)
from thimble.core.problem import Code, Problem
from thimble.deploy.policy import Policy, changed, url_reasons, words

SAVE = UpdatePolicy(url="https://u.example/x.efi", vms=Guests.SAVE, reboot=Reboot.FIRMWARE)


def policy(tmp_path: Path, value: UpdatePolicy | None = None) -> Policy:
    made = Policy(tmp_path, durable=False)
    if value is not None:
        asyncio.run(made.commit(value))
    return made


def test_a_request_that_says_nothing_follows_the_policy(tmp_path: Path) -> None:
    kept = policy(tmp_path, SAVE)
    for request in (UpdateRequest(), RollbackRequest()):
        how = kept.restart(request)
        assert (how.vms, how.reboot, how.guest_timeout_s) == (Guests.SAVE, Reboot.FIRMWARE, 120.0)
    assert kept.image(UpdateRequest()) == "https://u.example/x.efi"


def test_what_a_request_says_wins(tmp_path: Path) -> None:
    kept = policy(tmp_path, SAVE)
    how = kept.restart(UpdateRequest(image="upload", vms=Guests.POLICY, reboot=Reboot.KEXEC))
    assert (how.vms, how.reboot) == (Guests.POLICY, Reboot.KEXEC)
    assert kept.image(UpdateRequest(image="upload")) == "upload"


def test_the_policy_outlives_the_agent(tmp_path: Path) -> None:
    policy(tmp_path, SAVE)
    assert policy(tmp_path).value == SAVE


def test_without_a_policy_each_vm_decides_and_an_image_has_to_be_named(tmp_path: Path) -> None:
    kept = policy(tmp_path)
    assert kept.restart(RollbackRequest()).vms is Guests.POLICY
    with pytest.raises(Problem) as caught:
        kept.image(UpdateRequest())
    assert caught.value.code is Code.INVALID and "[update]" in caught.value.hint


def test_a_change_leaves_the_rest_and_is_told() -> None:
    new = changed(SAVE, PolicyChange(vms=Guests.SHUTDOWN))
    assert new == UpdatePolicy(url=SAVE.url, vms=Guests.SHUTDOWN, reboot=Reboot.FIRMWARE)
    assert words(SAVE, new) == ["sets vms of updates to shutdown"]
    assert words(SAVE, changed(SAVE, PolicyChange(url=""))) == ["sets url of updates to nothing"]


@pytest.mark.parametrize(
    ("url", "good"), [("", True), ("https://h/x", True), ("ftp://h/x", False), ("x", False)]
)
def test_where_updates_may_be(url: str, good: bool) -> None:
    assert (url_reasons(url) == []) is good
