"""Files that are whole before and after."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from thimble.core.problem import Code, Problem
from thimble.sys import files


def listed(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_a_file_is_written_with_its_mode_and_no_traces(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "x"
    files.write_atomic(target, b"one", mode=0o640)
    files.write_atomic(target, b"two" * 100_000, mode=0o600)
    assert target.read_bytes() == b"two" * 100_000
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert listed(target.parent) == ["x"]


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, Code.NO_SPACE), (errno.EIO, Code.FAILED)])
def test_whatever_step_fails_the_old_content_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, code: Code
) -> None:
    target = tmp_path / "x"
    files.write_atomic(target, b"old")

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path if step == "rename" else os, step, fail)
    with pytest.raises(Problem) as caught:
        files.write_atomic(target, b"new")
    monkeypatch.undo()
    assert caught.value.code is code and str(target) in caught.value.detail
    assert target.read_bytes() == b"old" and listed(tmp_path) == ["x"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
    files.write_atomic(tmp_path / "x", b"0123456789")
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_removing_what_is_not_there_is_fine_and_a_directory_is_not(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "x", b"")
    files.remove(tmp_path / "x")
    files.remove(tmp_path / "x")
    assert not listed(tmp_path)
    with pytest.raises(Problem):
        files.remove(tmp_path)


def test_space_is_told_and_a_missing_place_is_a_problem(tmp_path: Path) -> None:
    size, free = files.space(tmp_path)
    assert size >= free > 0
    with pytest.raises(Problem):
        files.space(tmp_path / "none")


def test_a_read_only_file_system_gets_a_hint() -> None:
    assert files.problem(OSError(errno.EROFS, ""), "cannot").hint


def test_a_large_file_is_removed_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = tmp_path / "disk0.qcow2"
    large.write_bytes(b"x")
    files.remove_large(large)
    files.remove_large(large)
    assert list(tmp_path.iterdir()) == []

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    large.write_bytes(b"x")
    monkeypatch.setattr(Path, "rename", full)
    files.remove_large(large)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_out_of_sight_before_its_blocks_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(b"x")
    real = files.remove
    seen: list[list[str]] = []

    def slow(path: Path) -> None:
        seen.append([entry.name for entry in tmp_path.iterdir()])
        real(path)

    monkeypatch.setattr(files, "remove", slow)
    files.remove_large(tmp_path / "large")
    assert seen == [[".large.gone.new"]]
    assert list(tmp_path.iterdir()) == []
