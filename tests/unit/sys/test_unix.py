"""Unix sockets at paths longer than the kernel takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from thimble.sys import unix


def test_a_socket_at_a_long_path_is_heard_and_called(tmp_path: Path) -> None:
    place = tmp_path / ("d" * 120)
    place.mkdir()
    for _ in range(2):  # the second replaces the first
        with unix.listen(place / "serial.sock") as door, unix.dial(place / "serial.sock") as line:
            there, _ = door.accept()
            line.send(b"hello")
            assert there.recv(16) == b"hello"
            there.close()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unix.dial(tmp_path / "none")
