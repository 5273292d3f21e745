"""VMs as clients of different roles see them."""

from __future__ import annotations

import pytest
from vm_examples import record

from thimble.contract.host import Role
from thimble.contract.vm import PowerState, VmStatus
from thimble.vm.record import view


@pytest.mark.parametrize(
    ("role", "seen"), [(Role.VIEWER, ""), (Role.OPERATOR, "a secret"), (Role.ADMIN, "a secret")]
)
def test_what_a_guest_wrote_on_its_console_is_not_for_viewers(role: Role, seen: str) -> None:
    status = VmStatus(state=PowerState.CRASHED, since=0.0, last_output="a secret")
    seen_by = view.view("vm-1", "local", record(), status, (), role=role)
    assert seen_by.status.last_output == seen
