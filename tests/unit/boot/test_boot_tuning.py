"""The settings PID 1 computes."""

from __future__ import annotations

import pytest

from thimble.boot.tuning import reserve_kib

GIB = 1 << 20  # in KiB


@pytest.mark.parametrize(
    ("ram_kib", "reserve"), [(1 * GIB, 8192), (4 * GIB, 16384), (64 * GIB, 65536), (8192 * GIB, 524288)]
)
def test_the_reserve_grows_with_the_root_of_the_ram(ram_kib: int, reserve: int) -> None:
    assert reserve_kib(ram_kib) == reserve
