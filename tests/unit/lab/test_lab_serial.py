"""Waiting for words on a serial line."""

from __future__ import annotations

from pathlib import Path

import pytest

from thimble.core.problem import Code, Problem
from thimble.lab.serial import SerialLog


def nothing() -> None:
    """Nothing is wrong."""


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as handle:
        handle.write(data)


def test_a_match_is_returned_with_what_came_before_it(tmp_path: Path) -> None:
    log = SerialLog(tmp_path / "log")
    append(tmp_path / "log", b"boot\r\nlogin: ")
    assert log.wait_for(b"login:", timeout=1, check=nothing) == b"boot\r\nlogin:"
    assert log.read() == b" "


def test_words_that_came_once_are_found_once(tmp_path: Path) -> None:
    log = SerialLog(tmp_path / "log")
    append(tmp_path / "log", b"up\n")
    assert log.wait_for(b"up", timeout=1, check=nothing)
    assert log.wait_for(b"up", timeout=0, check=nothing) is None
    append(tmp_path / "log", b"up\n")
    assert log.wait_for(b"up", timeout=1, check=nothing) == b"\nup"


def test_a_pattern_that_arrives_in_pieces_is_found(tmp_path: Path) -> None:
    path = tmp_path / "log"
    pieces = iter([b"tiny gu", b"est: ", b"up"])
    found = SerialLog(path).wait_for(b"guest: up", timeout=5, check=lambda: append(path, next(pieces)))
    assert found == b"tiny guest: up"


def test_a_missing_log_is_an_empty_one(tmp_path: Path) -> None:
    log = SerialLog(tmp_path / "absent")
    assert log.wait_for(b"x", timeout=0, check=nothing) is None
    assert log.tail() == b""


def test_skip_forgets_what_was_said(tmp_path: Path) -> None:
    log = SerialLog(tmp_path / "log")
    append(tmp_path / "log", b"old ready\n")
    log.skip()
    assert log.wait_for(b"ready", timeout=0, check=nothing) is None
    assert log.tail(6) == b"ready\n"


def test_the_check_can_end_the_waiting(tmp_path: Path) -> None:
    def gone() -> None:
        raise Problem(Code.UNAVAILABLE, "gone")

    with pytest.raises(Problem, match="gone"):
        SerialLog(tmp_path / "log").wait_for(b"x", timeout=60, check=gone)
