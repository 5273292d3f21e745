"""The directory of servers: what is listed, what is stale."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from thimble.core.problem import Code, Problem
from thimble.lab import home
from thimble.lab.server import LabServer, _forwards
from thimble.lab.spec import ServerSpec
from thimble.sys import process


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_a_server_whose_process_is_gone_is_listed_as_off() -> None:
    here = process.identify(os.getpid())
    assert here is not None
    for name, who in (("alive", here), ("reused", process.Identity(here.pid, here.start + 1))):
        home.write_spec(home.of(name), ServerSpec(name=name, kernel="/k"))
        home.write_running(home.of(name), home.RunningServer(who=who, accel="tcg", powered_on=0))
    assert {entry.name: entry.running for entry in home.entries()} == {"alive": True, "reused": False}


def test_a_running_server_is_not_started_twice() -> None:
    here = process.identify(os.getpid())
    assert here is not None
    home.write_spec(home.of("busy"), ServerSpec(name="busy", kernel="/k"))
    home.write_running(home.of("busy"), home.RunningServer(who=here, accel="tcg", powered_on=0))
    with pytest.raises(Problem) as caught:
        LabServer.up(ServerSpec(name="busy", kernel="/k"))
    assert caught.value.code is Code.EXISTS


def test_an_unknown_server_is_not_found() -> None:
    with pytest.raises(Problem) as caught:
        LabServer.attach("nobody")
    assert caught.value.code is Code.NOT_FOUND


def test_a_socket_deep_in_the_tree_can_be_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    listener = socket.socket(socket.AF_UNIX)
    folder = os.open(deep, os.O_PATH)
    listener.bind(f"/proc/self/fd/{folder}/qmp.sock")
    listener.listen()
    assert len(str(deep / "qmp.sock")) > 107
    home.connect(deep / "qmp.sock", timeout=1).close()
    os.close(folder)
    listener.close()


def test_forwards_are_read_from_what_qemu_says() -> None:
    said = (
        "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ\r\n"
        "  TCP[HOST_FORWARD]  21       127.0.0.1 40137       10.0.2.15   443     0     0\r\n"
        "  TCP[ESTABLISHED]   22       127.0.0.1 40137       10.0.2.15   443     0     0\r\n"
        "  TCP[HOST_FORWARD]  23       127.0.0.1 36001       10.0.2.15    22     0     0\r\n"
    )
    assert _forwards(said) == {443: 40137, 22: 36001}
