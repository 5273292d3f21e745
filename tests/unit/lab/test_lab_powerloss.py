"""A disk after a cut: what was flushed is there, what was not is there, gone, or torn."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from thimble.core.problem import Problem
from thimble.lab import powerloss

SECTOR = powerloss.SECTOR
FLUSH = (0, 0, 1, b"")


def noted(disk: Path, entries: list[tuple[int, int, int, bytes]]) -> None:
    """The log as QEMU leaves it."""
    text = struct.pack("<QQQI", 0x6A736677736872, 1, len(entries), SECTOR).ljust(SECTOR, b"\0")
    for sector, count, flags, data in entries:
        text += struct.pack("<QQQQ", sector, count, flags, len(data)).ljust(SECTOR, b"\0") + data
    powerloss.log_of(disk).write_bytes(text)


def write(sector: int, letter: bytes, count: int = 1) -> tuple[int, int, int, bytes]:
    return (sector, count, 0, letter * SECTOR * count)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk0.raw"
    path.write_bytes(b"." * SECTOR * 16)
    powerloss.prepare(path)
    return path


@pytest.mark.parametrize("seed", range(20))
def test_what_was_flushed_survives_any_cut(disk: Path, seed: int) -> None:
    noted(disk, [write(1, b"a"), write(2, b"b", 2), FLUSH, write(1, b"c"), write(9, b"d", 4)])
    uncertain, lost = powerloss.lose(disk, random.Random(seed))
    after = disk.read_bytes()
    assert uncertain == 2 and 0 <= lost <= 2
    assert after[2 * SECTOR : 4 * SECTOR] == b"b" * SECTOR * 2
    assert after[SECTOR : SECTOR + 1] in (b"a", b"c")
    assert set(after[9 * SECTOR : 13 * SECTOR]) <= set(b".d")


def test_unflushed_writes_are_lost_kept_and_torn(disk: Path) -> None:
    seen = set()
    for seed in range(60):
        disk.write_bytes(b"." * SECTOR * 16)
        powerloss.prepare(disk)
        noted(disk, [write(4, b"x", 4)])
        powerloss.lose(disk, random.Random(seed))
        seen.add(disk.read_bytes()[4 * SECTOR : 8 * SECTOR].count(b"x") // SECTOR)
    assert {0, 4} < seen


def test_a_discard_reads_as_zeros(disk: Path) -> None:
    noted(disk, [(3, 2, 4, b""), FLUSH])
    powerloss.lose(disk, random.Random(0))
    assert disk.read_bytes()[3 * SECTOR : 5 * SECTOR] == bytes(2 * SECTOR)


def test_a_server_that_wrote_nothing_left_no_log(disk: Path) -> None:
    assert powerloss.lose(disk, random.Random(0)) == (0, 0)


def test_a_file_that_is_no_log_is_refused(disk: Path) -> None:
    powerloss.log_of(disk).write_bytes(b"x" * 600)
    with pytest.raises(Problem):
        powerloss.lose(disk, random.Random(0))
