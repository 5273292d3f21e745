"""The guard that keeps tests from what they did not make; with signals that would do no harm without it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

import guard
from guard import Ours


@pytest.fixture(autouse=True)
def forgiven() -> Iterator[None]:
    """These refusals are wanted."""
    yield
    guard.refused.clear()


needs_a_stranger = pytest.mark.skipif(os.getpid() == 1, reason="this run is everybody's parent")


@needs_a_stranger
@pytest.mark.parametrize("pid", [1, -1, 0, os.getppid()])
def test_a_process_that_no_test_started_gets_no_signal(pid: int) -> None:
    with pytest.raises(AssertionError, match=r"test_a_process_that_no_test_started.* signal 23 to"):
        os.kill(pid, signal.SIGURG)


@needs_a_stranger
def test_the_other_ways_to_signal_are_guarded_too() -> None:
    with pytest.raises(AssertionError, match=r"to process 1 \(of 0\),"):
        os.killpg(1, signal.SIGURG)
    first = os.pidfd_open(1)
    with pytest.raises(AssertionError, match=r"to process 1 \(of 0\),"):
        signal.pidfd_send_signal(first, signal.SIGURG)
    os.close(first)


def test_a_pid_that_is_made_up_is_refused_where_nobody_has_it() -> None:
    ours = Ours(1 << 23)  # above any pid of this kernel: everybody is older
    nobody = next(pid for pid in range(1 << 22, 0, -1) if not os.path.exists(f"/proc/{pid}"))  # noqa: PTH110
    assert "did not start" in ours.refuse_process(nobody, signal.SIGTERM)


def test_whether_a_process_is_there_may_be_asked() -> None:
    os.kill(1, 0)


def test_children_of_children_are_ours_even_when_they_are_orphans() -> None:
    said = subprocess.run(["sh", "-c", "sleep 60 >/dev/null & echo $!"], stdout=subprocess.PIPE, check=True)
    orphan = int(said.stdout)
    os.kill(orphan, signal.SIGKILL)
    assert os.waitpid(orphan, 0)[1] == signal.SIGKILL, "its parent is this run, that reaps it"
    with pytest.raises(ProcessLookupError):
        os.kill(orphan, signal.SIGKILL)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    "argv", [["ip", "link", "set", "lo", "up"], ["ip", "-batch", "/dev/null"], ["nft", "-f", "/dev/null"]]
)
def test_the_machines_own_network_is_not_changed(argv: list[str]) -> None:
    with pytest.raises(AssertionError, match="changes the machine's own network"):
        subprocess.run(argv, check=True)


@needs_a_stranger
def test_a_refusal_that_is_swallowed_fails_the_test_at_its_end() -> None:
    try:
        os.kill(1, signal.SIGURG)
    except Exception as error:
        assert "process 1" in str(error)
    with pytest.raises(AssertionError, match="process 1 "):
        guard.check()
    guard.check()
