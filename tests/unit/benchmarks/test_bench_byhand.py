"""A QEMU's command line, run once more by hand: the same words, the same descriptors, a place of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.inside import byhand

# Stands for QEMU: says where it logs what kind of thing its descriptors are, then waits to be killed.
STAND_IN = """
import json, os, signal, stat, sys
said = {"argv": sys.argv[1:], "file": os.read(FD2, 5).decode()}
said["socket"] = stat.S_ISSOCK(os.fstat(FD1).st_mode)
with open(sys.argv[-1] + ".new", "w") as out:
    json.dump(said, out)
os.rename(sys.argv[-1] + ".new", sys.argv[-1])
signal.pause()
"""


def wait_for(path: Path, pid: int) -> dict[str, object]:
    """What the stand-in wrote; a death of it is no silence."""
    while not path.exists():
        gone, status = os.waitpid(pid, os.WNOHANG)
        assert not gone, f"the stand-in ended with {status}"
        os.sched_yield()
    found: dict[str, object] = json.loads(path.read_text())
    return found


@pytest.mark.timeout(60)
def test_the_same_command_line_runs_again_with_descriptors_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    theirs.mkdir()
    monkeypatch.setattr(byhand, "PLACE", str(ours))
    (tmp_path / "image").write_text("bytes of an image")
    with socket.socket(socket.AF_UNIX) as listening, (tmp_path / "image").open("rb") as image:
        listening.bind(str(theirs / "qmp.sock"))
        listening.listen()
        program = STAND_IN.replace("FD1", str(listening.fileno())).replace("FD2", str(image.fileno()))
        words = [f"socket,fd={listening.fileno()},server=on", "-S", f"fd={image.fileno()},set=1"]
        argv = [sys.executable, "-c", program, *words, f"{theirs}/log"]
        first = subprocess.Popen(argv, pass_fds=(listening.fileno(), image.fileno()))
        wait_for(theirs / "log", first.pid)
        taken = byhand.ByHand(first.pid, str(theirs))
        first.kill()
        first.wait()
    again = taken.start()
    found = wait_for(ours / "log", again)
    byhand.end(again)
    assert found == {"argv": [words[0], words[2], f"{ours}/log"], "socket": True, "file": "bytes"}


def test_a_start_in_pause_is_dropped_and_the_run_directory_is_moved() -> None:
    words = ["qemu", "-S", "-chardev", "socket,fd=7,logfile=/run/thimble/vms/x/serial.log", "-m", "256"]
    assert byhand.translate(words, "/run/thimble/vms/x") == [
        "qemu",
        "-chardev",
        "socket,fd=7,logfile=/run/bench/serial.log",
        "-m",
        "256",
    ]


def test_every_descriptor_of_the_command_line_is_found_once() -> None:
    words = [
        "-add-fd",
        "fd=12,set=1,opaque=x",
        "-netdev",
        "tap,fd=9,vhostfd=10",
        "socket,fd=9",
        "-drive",
        "xfd=3",
    ]
    assert byhand.descriptors(words) == [9, 10, 12]


def test_a_process_run_by_hand_is_gone_after_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byhand, "PLACE", str(tmp_path))
    with subprocess.Popen(["sleep", "1000"]) as sleeping:
        taken = byhand.ByHand(sleeping.pid, str(tmp_path))
        sleeping.send_signal(signal.SIGKILL)
    pid = taken.start()
    byhand.end(pid)
    assert not Path(f"/proc/{pid}").exists()
