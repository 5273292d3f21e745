"""What the boot does without drivers that hang."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from thimble.boot import drivers, statedisk, steps
from thimble.boot.modalias import EMPTY
from thimble.boot.stage2 import Boot
from thimble.boot.statesearch import StateSearch


def booting(state: str = "auto") -> tuple[Boot, list[str]]:
    """A boot whose jobs all hang; what it does is in the list."""
    did: list[str] = []

    def job(name: str, work: Any, done: Any, late: Any, too_late: Any = None) -> None:
        late("not done after 60 s")

    boot = Boot.__new__(Boot)
    boot.children = cast(Any, SimpleNamespace(job=job))
    boot.settings = cast(Any, SimpleNamespace(state=state, state_wait=5.0))
    boot.table, boot.cpuinfo = EMPTY, ""
    boot.disks_late, boot.warnings = "", []
    boot.say = lambda line: did.append(line)  # type: ignore[method-assign]
    boot.state = StateSearch(cast(Any, None), boot.children, boot.say, boot.warn)
    return boot, did


def test_a_kvm_driver_that_hangs_is_told_loudly_and_the_boot_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "kvm_module", lambda _: "kvm_amd")
    boot, did = booting()
    steps.kvm(boot, lambda: did.append("done"))
    words = "NO KVM, VMS WILL BE SLOW: loading the drivers is not done after 60 s"
    assert did == [f"warning: {words}", "done"]
    assert boot.warnings == [words]


def test_disk_drivers_that_hang_put_the_state_into_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statedisk, "mount_ram", lambda: None)
    boot, did = booting()
    steps.disks(boot, lambda: did.append("disks"))
    steps.state(boot, lambda: did.append("state"))
    reason = "loading the drivers of disks is not done after 60 s"
    assert did == ["disks", f"warning: STATE IS IN RAM AND WILL BE LOST: {reason}", "state"]
    assert boot.warnings == [f"STATE IS IN RAM AND WILL BE LOST: {reason}"]
    assert (boot.state.kind, boot.state.reason) == ("ram", reason)


def test_a_later_look_that_hangs_puts_the_state_into_ram_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statedisk, "mount_ram", lambda: None)
    monkeypatch.setattr(statedisk, "on_the_way", lambda: "surely")
    boot, did = booting()
    steps.state(boot, lambda: did.append("state"))
    assert did[-1] == "state"
    assert boot.warnings == ["STATE IS IN RAM AND WILL BE LOST: looking for disks is not done after 60 s"]
