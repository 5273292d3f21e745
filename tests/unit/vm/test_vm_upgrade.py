"""Records that an earlier version wrote: `old/` holds them as they came from it, one of each kind of VM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from vm_examples import EXAMPLES, definition
from vm_table_world import context

from thimble.contract.vm import Intent
from thimble.vm.qemu import render
from thimble.vm.record.saved_state import Saved
from thimble.vm.record.spec import Definition, Phase
from thimble.vm.table import VmTable

OLD = Path(__file__).parent / "old"


def table(where: Path) -> VmTable:
    home = where / "vms"
    for path in OLD.glob("*.json"):
        (home / path.stem).mkdir(parents=True)
        shutil.copy(path, home / path.stem / "vm.json")
    made = VmTable(context(where), durable=False)
    assert len(made.take("local", home)) == len(EXAMPLES)
    assert not made.broken
    return made


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_vm_is_what_it_was(name: str, tmp_path: Path) -> None:
    found = table(tmp_path).get(f"vm-{name}").value
    was = json.loads((OLD / f"vm-{name}.json").read_text())["record"]
    vm = found.definition
    assert [nic.mac for nic in vm.nics] == [nic["mac"] for nic in was["nics"]]
    assert [disk.size_bytes for disk in vm.disks] == [disk["size_bytes"] for disk in was["disks"]]
    assert (vm.uuid, vm.uid, vm.addresses, vm.machine_type) == (
        was["uuid"], was["uid"], was["addresses"], was["machine_type"],
    )  # fmt: skip
    assert found.noted.intent is Intent.RUNNING and found.noted.phase is Phase.READY
    assert found.noted.saved is (name == "many")
    assert (found.noted.key, found.noted.digest) == ("ann/k1", "d" * 64)
    assert found.generation == 3, "clients go on with the revision they hold"


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_command_line_is_the_same(name: str, tmp_path: Path) -> None:
    given = render.Machinery(accel="tcg", share=(), fds=dict.fromkeys(_keys(name), 3))
    found = table(tmp_path).get(f"vm-{name}").value.definition
    today = msgspec.structs.replace(definition(**EXAMPLES[name]), machine_type=found.machine_type)
    assert render.render(found, given) == render.render(
        msgspec.structs.replace(today, name=found.name, uuid=found.uuid), given
    )


def _keys(name: str) -> list[str]:
    vm = definition(**EXAMPLES[name])
    keys = [
        "qmp",
        "serial",
        "serial.log",
        "qga",
        "firmware.code",
        "firmware.vars",
        "kernel",
        "initrd",
        "seed",
    ]
    keys += [f"disk-{disk.name}" for disk in vm.disks] + [f"cd-{cd.name}" for cd in vm.cdroms]
    return keys + [f"nic-{nic.name}" for nic in vm.nics]


def test_what_is_written_next_is_of_todays_format(tmp_path: Path) -> None:
    made = table(tmp_path)
    made.settle("vm-many", made.get("vm-many").value)
    again = VmTable(context(tmp_path), durable=False)
    again.take("local", tmp_path / "vms")
    assert again.get("vm-many").value == made.get("vm-many").value
    assert json.loads((tmp_path / "vms/vm-many/vm.json").read_text())["format"] == 2


def test_the_memory_of_a_vm_saved_by_it_is_still_that_of_this_vm() -> None:
    """The head of its file holds what ran as that version wrote it, with fields nobody asks for any more."""
    record = json.loads((OLD / "vm-q35-uefi.json").read_text())["record"]
    running = {"record": record, "ports": 8, "accel": "kvm", "started": 1.0}
    head = {"running": running, "machine": "pc-q35-10.0", "cpu": ["A", []], "goes_on": True, "stays": False,
            "when": 2.0}  # fmt: skip
    fields = {"cpu": {"model": "A", "flags": []}}
    try:
        saved = msgspec.convert(head, Saved)
    except msgspec.ValidationError:
        saved = msgspec.convert(head | fields, Saved)
    assert isinstance(saved.running.record, Definition)
    assert saved.running.record.uuid == record["uuid"]
