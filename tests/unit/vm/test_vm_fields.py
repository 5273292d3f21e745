"""A field of a VM is described once; and records have one writer."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET

from thimble.contract.openapi import document
from thimble.contract.vm import Applies, Vm, VmChange, VmCreate, VmSpec, applies, fields
from thimble.vm.record.spec import Definition

SOURCE = Path(__file__).parents[3] / "src" / "thimble"


def test_every_field_says_when_a_change_takes_effect() -> None:
    assert list(applies()) == list(VmSpec.__struct_fields__)


def test_what_can_be_changed_is_every_field_that_is_not_fixed() -> None:
    assert set(VmChange.__struct_fields__) == set(applies()) - set(fields(Applies.NEVER))


@pytest.mark.parametrize("name", VmChange.__struct_fields__)
def test_a_change_takes_what_a_create_takes(name: str) -> None:
    given = {field.name: field for field in msgspec.structs.fields(VmSpec)}[name]
    changed = {field.name: field for field in msgspec.structs.fields(VmChange)}[name]
    assert changed.default is UNSET
    for words in (b'"x"', b"0", b"7", b"true", b"null", b"[]", b"{}", b'"save"', b'"uefi"', b'"stop"'):
        assert _takes(given.type, words) == _takes(changed.type, words), (name, words)


def _takes(kind: type, words: bytes) -> bool:
    try:
        msgspec.json.decode(words, type=kind)
    except msgspec.ValidationError:
        return False
    return True


def test_what_is_asked_is_shown_and_what_qemu_needs_is_in_the_definition() -> None:
    assert set(VmSpec.__struct_fields__) <= set(Vm.__struct_fields__)
    beside = {"description", "datastore", "autostart", "on_crash", "host_shutdown"}
    assert set(VmSpec.__struct_fields__) - beside <= set(Definition.__struct_fields__)


def test_the_api_tells_when_a_change_takes_effect() -> None:
    shown = msgspec.json.decode(document("1"))["components"]["schemas"]
    for kind in (VmCreate, VmChange):
        properties = shown[kind.__name__]["properties"]
        for name in properties.keys() & applies().keys():
            assert properties[name]["x-applies"] == applies()[name]


def test_only_the_table_writes_vm_records() -> None:
    """Whoever has a `Collection[VmRecord]`, or reaches into the table's, would be another writer."""
    for path in (SOURCE / "vm").rglob("*.py"):
        text = path.read_text()
        if path.name == "table.py":
            assert "Collection[VmRecord]" in text
        else:
            assert not re.search(r"Collection\[VmRecord\]|table\._store|Collection\(\s*VmRecord", text), path
