"""The lock file: read, written, compared."""

from __future__ import annotations

from thimble.image import locking
from thimble.image.locking import Lock, Pin
from thimble.image.packages import read_lock, wanted


def pin(name: str, version: str) -> Pin:
    return Pin(
        name=name,
        version=version,
        architecture="amd64",
        sha256=f"{name}{version}".encode().hex().ljust(64, "0"),
    )


def test_a_lock_survives_being_written_and_read() -> None:
    lock = Lock(
        suite="trixie", epoch=86400, sets={"a": (pin("x", "1"), pin("y", "2")), "b": (pin("y", "2"),)}
    )
    assert locking.read(locking.write(lock)) == lock


def test_each_package_is_one_line_so_that_a_refresh_reads_well() -> None:
    lock = Lock(suite="trixie", epoch=1, sets={"a": (pin("x", "1"), pin("y", "2"))})
    assert [line for line in locking.write(lock).splitlines() if '"name"' in line] != []
    assert locking.write(lock).count("\n") == 4


def test_changes_name_what_moved_came_and_went() -> None:
    old, new = [pin("a", "1"), pin("b", "1"), pin("c", "1")], [pin("a", "1"), pin("b", "2"), pin("d", "1")]
    assert locking.changes(old, new) == ["b 1 → 2", "- c 1", "+ d 1"]


def test_the_projects_own_lock_has_every_set_and_names_no_host() -> None:
    lock = read_lock()
    assert set(lock.sets) == set(wanted().sets)
    assert all(len(pin.sha256) == 64 for pins in lock.sets.values() for pin in pins)
    assert "://" not in locking.write(lock)


def test_whatever_the_lists_ask_for_is_pinned() -> None:
    lock = read_lock()
    for name, asked in wanted().sets.items():
        assert set(asked) <= {pin.name for pin in lock.named(name)}
