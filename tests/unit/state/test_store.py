"""Durable records: compare-and-set, refusal of what cannot be read, upgrades, roots."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from thimble.core.problem import Code, Problem
from thimble.state.store import Collection, is_durable


class Thing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    size: int = 0


def root(directory: Path, **more: Any) -> Collection[Thing]:
    things = Collection(Thing, noun="thing", durable=False, **more)
    things.add_root("a", directory)
    return things


def code(work: Any, *args: Any, **more: Any) -> Code:
    with pytest.raises(Problem) as caught:
        work(*args, **more)
    return caught.value.code


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    things = root(tmp_path)
    assert things.put("x", Thing(name="one"), root="a").rev == 1
    assert things.put("x", Thing(name="two"), expect=1).rev == 2
    again = root(tmp_path).get("x")
    assert (again.value, again.rev, again.root) == (Thing(name="two"), 2, "a")


def test_another_revision_is_stale_and_changes_nothing(tmp_path: Path) -> None:
    things = root(tmp_path)
    things.put("x", Thing(name="one"), root="a", expect=0)
    before = (tmp_path / "x.json").read_bytes()
    for expect in (0, 2):
        assert code(things.put, "x", Thing(name="two"), expect=expect) is Code.STALE
    assert code(things.delete, "x", expect=7) is Code.STALE
    assert (tmp_path / "x.json").read_bytes() == before and things.get("x").value.name == "one"


def test_a_deleted_record_is_gone_for_good(tmp_path: Path) -> None:
    things = root(tmp_path)
    things.put("x", Thing(name="one"), root="a")
    things.delete("x")
    assert things.find("x") is None and not root(tmp_path).all()
    assert code(things.get, "x") is Code.NOT_FOUND
    assert code(things.delete, "x") is Code.NOT_FOUND


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"format":1,"rev":1}',
        b'{"format":1,"rev":1,"record":{"name":5}}',
        b'{"format":1,"rev":1,"record":{"name":"a","colour":"red"}}',
        b'{"format":1,"rev":1,"record":{"name":"a"},"more":1}',
        b'{"format":2,"rev":1,"record":{"name":"a"}}',
        b'{"format":0,"rev":1,"record":{"name":"a"}}',
        b'{"format":-1,"rev":1,"record":{"name":"a"}}',
    ],
)
def test_what_cannot_be_read_is_refused_kept_and_its_id_taken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    things = root(tmp_path)
    assert not things.all()
    assert list(things.broken) == [tmp_path / "x.json"] and all(things.broken.values())
    assert code(things.put, "x", Thing(name="new"), root="a") is Code.EXISTS
    assert (tmp_path / "x.json").read_bytes() == content


def test_a_directory_in_the_place_of_a_record_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    assert list(root(tmp_path).broken) == [tmp_path / "x.json"]


def test_an_old_format_is_upgraded_step_by_step(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"format":1,"rev":4,"record":{"title":"one"}}')
    upgrades = (
        lambda old, rev: {"name": old["title"]},
        lambda old, rev: {**old, "size": 7},
    )
    things = root(tmp_path, upgrades=upgrades)
    assert things.format == 3
    assert things.get("x").value == Thing(name="one", size=7) and things.get("x").rev == 4
    things.put("x", things.get("x").value)
    assert b'"format": 3' in (tmp_path / "x.json").read_bytes()


def test_a_record_its_upgrade_stumbles_over_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"format":1,"rev":4,"record":{}}')
    things = root(tmp_path, upgrades=(lambda old, rev: {"name": old["title"]},))
    assert not things.all() and len(things.broken) == 1


def test_a_record_inside_a_directory_leaves_the_directory(tmp_path: Path) -> None:
    things = Collection(Thing, noun="thing", inside="thing.json", durable=False)
    things.add_root("a", tmp_path)
    things.put("x", Thing(name="one"), root="a")
    (tmp_path / "x" / "disk").write_text("data")
    (tmp_path / "stray").mkdir()
    again = Collection(Thing, noun="thing", inside="thing.json", durable=False)
    assert [record.id for record in again.add_root("a", tmp_path)] == ["x"]
    things.delete("x")
    assert (tmp_path / "x" / "disk").read_text() == "data"


def test_an_id_on_two_roots_counts_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        root(tmp_path / name).put("x", Thing(name=name), root="a")
    things = root(tmp_path / "a")
    assert not things.add_root("b", tmp_path / "b")
    assert things.get("x").value.name == "a"
    assert "also on a" in things.broken[tmp_path / "b" / "x.json"]


def test_a_shelf_can_go_and_come_back(tmp_path: Path) -> None:
    things = root(tmp_path / "a")
    things.add_root("b", tmp_path / "b")
    things.put("x", Thing(name="one"), root="a")
    things.put("y", Thing(name="two"), root="b")
    (tmp_path / "b" / "z.json").write_text("{")
    things.drop_root("b")
    assert [record.id for record in things.all()] == ["x"] and not things.broken
    assert {record.id for record in things.add_root("b", tmp_path / "b")} == {"y"}
    assert len(things.broken) == 1


def test_a_put_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    things = root(tmp_path)
    things.put("x", Thing(name="one"), root="a")

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert code(things.put, "x", Thing(name="two")) is Code.NO_SPACE
    assert code(things.put, "y", Thing(name="two"), root="a") is Code.NO_SPACE
    monkeypatch.undo()
    assert things.get("x").value.name == "one" and things.find("y") is None
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert root(tmp_path).get("x").rev == 1


def test_a_half_written_file_of_a_crash_is_no_record(tmp_path: Path) -> None:
    (tmp_path / ".x.json.77.new").write_text("{")
    things = root(tmp_path)
    assert not things.all() and not things.broken


def test_ram_is_not_durable_and_a_disk_is(tmp_path: Path) -> None:
    kinds = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        kinds[where] = kind
    for where, kind in kinds.items():
        if kind == "tmpfs" and Path(where).is_dir() and "\\" not in where:
            assert not is_durable(Path(where))
    if kinds["/"] in ("ext4", "overlay", "xfs", "btrfs"):
        assert is_durable(Path("/"))


@pytest.mark.parametrize("inside", ["", "vm.json"])
def test_what_a_write_that_was_cut_off_left_is_removed(tmp_path: Path, inside: str) -> None:
    place = tmp_path / "vm-1" if inside else tmp_path
    place.mkdir(exist_ok=True)
    left = place / f".{inside or 'one.json'}.4711.new"
    other = place / ".disk0.qcow2.new"
    for path in (left, other):
        path.write_bytes(b"half")
    Collection(Thing, noun="thing", inside=inside, durable=False).add_root("", tmp_path)
    assert not left.exists()
    assert other.exists()
