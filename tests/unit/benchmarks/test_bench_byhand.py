"""A QEMU's command line, run once more by hand: the same words, the same descriptors."""

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
    monkeypatch.setattr(byhand, "PLACE", str(tmp_path / "ours"))
    (tmp_path / "image").write_text("bytes of an image")
    where = tmp_path / "log"
    with socket.socket(socket.AF_UNIX) as listening, (tmp_path / "image").open("rb") as image:
        listening.bind(str(tmp_path / "qmp.sock"))
        listening.listen()
        program = STAND_IN.replace("FD1", str(listening.fileno())).replace("FD2", str(image.fileno()))
        words = [f"socket,fd={listening.fileno()},server=on", f"/proc/self/fd/{image.fileno()}", str(where)]
        argv = [sys.executable, "-c", program, "-S", *words]
        first = subprocess.Popen(argv, pass_fds=(listening.fileno(), image.fileno()))
        wait_for(where, first.pid)
        taken = byhand.ByHand(first.pid)
        first.kill()
        first.wait()
        where.unlink()
    again = taken.start()
    found = wait_for(where, again)
    byhand.end(again)
    assert found == {"argv": words, "socket": True, "file": "bytes"}


def test_each_descriptor_of_the_command_line_is_known_by_what_it_is_for() -> None:
    words = ["-add-fd", "fd=9,set=1,opaque=kvm", "-add-fd", "fd=10,set=2,opaque=serial.log"]
    words += ["-chardev", "socket,id=qmp,fd=11,server=on", "-kernel", "/proc/self/fd/14", "-m", "256"]
    assert byhand.wanted(words) == {9: "kvm", 10: "serial.log", 11: "listen", 14: "inherited"}


@pytest.mark.parametrize("word", ["tap,id=nic0,fd=9,vhost=on,vhostfd=10", "fd=12,set=3,opaque=disk-disk0"])
def test_what_two_guests_cannot_share_is_refused(word: str) -> None:
    with pytest.raises(RuntimeError, match="a second time"):
        byhand.wanted(["qemu", word])


def test_a_process_run_by_hand_is_gone_after_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byhand, "PLACE", str(tmp_path))
    with subprocess.Popen(["sleep", "1000"]) as sleeping:
        taken = byhand.ByHand(sleeping.pid)
        sleeping.send_signal(signal.SIGKILL)
    pid = taken.start()
    byhand.end(pid)
    assert not Path(f"/proc/{pid}").exists()
