"""What the boot does without drivers that hang."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from thimble.boot import phases
from thimble.boot.devices import drivers
from thimble.boot.devices.modalias import EMPTY
from thimble.boot.disks import statedisk
from thimble.boot.disks.statesearch import StateSearch
from thimble.boot.pid1 import Pid1


def booting(state: str = "auto") -> tuple[Pid1, list[str]]:
    """A boot whose jobs all hang; what it does is in the list."""
    did: list[str] = []

    def job(name: str, work: Any, done: Any, late: Any, too_late: Any = None) -> None:
        late("timed out after 60 s")

    pid1 = Pid1.__new__(Pid1)
    pid1.children = cast(Any, SimpleNamespace(job=job))
    pid1.command_line = cast(Any, SimpleNamespace(state=state, state_wait=5.0))
    pid1.drivers, pid1.cpuinfo = EMPTY, ""
    pid1.disks_late, pid1.warnings = "", []
    pid1.say = lambda line: did.append(line)  # type: ignore[method-assign]
    pid1.state = StateSearch(cast(Any, None), pid1.children, pid1.say, pid1.warn)
    return pid1, did


def test_a_kvm_driver_that_hangs_is_told_loudly_and_the_boot_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "kvm_module", lambda _: "kvm_amd")
    pid1, did = booting()
    phases.kvm(pid1, lambda: did.append("done"))
    words = "NO KVM: VMS WILL BE SLOW: loading drivers timed out after 60 s"
    assert did == [f"warning: {words}", "done"]
    assert pid1.warnings == [words]


def test_disk_drivers_that_hang_put_the_state_into_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statedisk, "mount_ram", lambda: None)
    pid1, did = booting()
    phases.disks(pid1, lambda: did.append("disks"))
    phases.state(pid1, lambda: did.append("state"))
    reason = "loading disk drivers timed out after 60 s"
    assert did == ["disks", f"warning: STATE IS IN RAM AND WILL BE LOST: {reason}", "state"]
    assert pid1.warnings == [f"STATE IS IN RAM AND WILL BE LOST: {reason}"]
    assert (pid1.state.kind, pid1.state.reason) == ("ram", reason)


def test_a_later_look_that_hangs_puts_the_state_into_ram_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statedisk, "mount_ram", lambda: None)
    monkeypatch.setattr(statedisk, "disks_pending", lambda: "yes")
    pid1, did = booting()
    phases.state(pid1, lambda: did.append("state"))
    assert did[-1] == "state"
    assert pid1.warnings == ["STATE IS IN RAM AND WILL BE LOST: looking for disks timed out after 60 s"]
