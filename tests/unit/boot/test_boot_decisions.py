"""The small decisions of PID 1: phases, back-off, which disk, which card, which key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.boot import clock
from thimble.boot.backoff import Backoff
from thimble.boot.devices.buttons import has_key, pressed
from thimble.boot.devices.drivers import kvm_module
from thimble.boot.disks.statedisk import Candidate
from thimble.boot.disks.statedisk import choose as choose_state
from thimble.boot.entropy import is_virtual
from thimble.boot.net.identity import default_name
from thimble.boot.net.nic_choice import NicCandidate, choose
from thimble.boot.phases import PHASES
from thimble.boot.ramlog import LineSplitter
from thimble.boot.sequence import BootPhase, BootProgress

A = NicCandidate("eth0", "52:54:00:00:00:01", "0000:00:02.0", carrier=False)
A_UP = NicCandidate("eth0", "52:54:00:00:00:01", "0000:00:02.0", carrier=True)
B_UP = NicCandidate("eth1", "52:54:00:00:00:02", "0000:00:03.0", carrier=True)


def phase(name: str, *needs: str) -> BootPhase:
    return BootPhase(name, lambda _pid1, done: done(), *needs)


def test_every_phase_has_its_function_and_the_list_runs_to_the_end() -> None:
    progress = BootProgress(PHASES)
    while not progress.finished():
        (phase, *_) = progress.startable()
        assert callable(phase.run)
        progress.started.append(phase.name)
        progress.done.append(phase.name)


def test_the_agent_goes_only_when_its_state_is_mounted_and_kvm_is_there() -> None:
    needs = {phase.name: set(phase.needs) for phase in PHASES}

    def all_needs(name: str) -> set[str]:
        return needs[name].union(*(all_needs(need) for need in needs[name]))

    assert {"kvm", "state", "seed", "settings"} <= all_needs("agent-go")
    assert not {"uplink", "address"} & all_needs("ready"), "no network may hold up readiness"


def test_a_phase_starts_when_all_it_needs_is_done() -> None:
    progress = BootProgress((phase("a"), phase("b"), phase("c", "a", "b")))
    assert [phase.name for phase in progress.startable()] == ["a", "b"]
    progress.started += ["a", "b"]
    progress.done.append("a")
    assert progress.startable() == []
    progress.done.append("b")
    assert [phase.name for phase in progress.startable()] == ["c"]


@pytest.mark.parametrize("phases", [(phase("a"), phase("a")), (phase("a", "b"), phase("b"))])
def test_an_unsound_list_is_refused(phases: tuple[BootPhase, ...]) -> None:
    with pytest.raises(ValueError, match="phase a"):
        BootProgress(phases)


def test_back_off_doubles_up_to_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.next_delay(ran_s=0.1) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_child_that_ran_long_enough_starts_over() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.next_delay(ran_s=1)
    assert backoff.next_delay(ran_s=61) == 1


@given(st.lists(st.floats(0, 1000), max_size=100))
def test_the_wait_is_never_long_and_never_nothing(runs: list[float]) -> None:
    backoff = Backoff()
    assert all(1 <= backoff.next_delay(ran_s=seconds) <= 60 for seconds in runs)


def test_one_state_partition_is_taken() -> None:
    one = Candidate("/dev/sda2", clean=True)
    assert choose_state([one]) == (one, "")


@pytest.mark.parametrize(
    ("candidates", "reason"),
    [
        ([], "no partition is labelled"),
        ([Candidate("/dev/sda2"), Candidate("/dev/sdb")], "more than one partition"),
        ([Candidate("/dev/sda2", problem="has no ext4 file system")], "/dev/sda2 has no ext4 file system"),
    ],
)
def test_no_partition_is_taken_when_it_is_not_clear_or_not_usable(
    candidates: list[Candidate], reason: str
) -> None:
    chosen, why = choose_state(candidates)
    assert chosen is None
    assert reason in why


def test_the_first_card_with_link_is_taken_at_once() -> None:
    assert choose([B_UP, A_UP], "", patient=True) == "eth0"


def test_another_card_is_taken_only_after_the_first_had_its_time() -> None:
    assert choose([A, B_UP], "", patient=True) == ""
    assert choose([A, B_UP], "", patient=False) == "eth1"


def test_no_card_is_taken_without_link() -> None:
    assert choose([A], "", patient=False) == ""
    assert choose([], "", patient=False) == ""


@pytest.mark.parametrize("wanted", ["eth0", "52:54:00:00:00:01", "0000:00:02.0"])
def test_a_named_card_is_taken_with_or_without_link(wanted: str) -> None:
    assert choose([B_UP, A], wanted, patient=True) == "eth0"


def test_no_other_card_stands_in_for_the_named_one() -> None:
    assert choose([A_UP, B_UP], "eth7", patient=False) == ""


def test_a_power_key_is_seen_in_the_capabilities() -> None:
    assert has_key("10000000000000 0", 116)
    assert not has_key("8000000000000 0", 116)
    assert not has_key("fffffffffffffffe", 116)


def event(kind: int, code: int, value: int) -> bytes:
    return b"\0" * 16 + kind.to_bytes(2, "little") + code.to_bytes(2, "little") + value.to_bytes(4, "little")


def test_only_the_press_counts_not_repeat_and_release() -> None:
    assert pressed(event(0, 0, 0) + event(1, 116, 1), 116)
    assert not pressed(event(1, 116, 0) + event(1, 116, 2) + event(1, 30, 1) + event(4, 116, 1), 116)


@pytest.mark.parametrize(
    ("flags", "module"), [("fpu vmx ept", "kvm_intel"), ("fpu svm npt", "kvm_amd"), ("fpu hypervisor", "")]
)
def test_the_cpu_flags_tell_the_kvm_module(flags: str, module: str) -> None:
    assert kvm_module(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t: x\n") == module


def test_a_hypervisors_flag_forbids_crediting_the_seed() -> None:
    assert is_virtual("flags : fpu hypervisor lahf\n")
    assert not is_virtual("flags : fpu lahf\n")


def test_the_default_name_ends_with_the_mac() -> None:
    assert default_name("52:54:00:12:34:56") == "thimble-123456"
    assert default_name("") == "thimble"


def test_given_time_servers_replace_the_pool_and_nothing_is_written_to_disk() -> None:
    text = clock.chrony_conf(["10.0.0.1"])
    assert "server 10.0.0.1 iburst" in text
    assert "pool" not in text
    assert clock.POOL in clock.chrony_conf([])
    assert "driftfile" not in text
    assert "dumpdir" not in text


@given(st.lists(st.text("ab\n", max_size=5), max_size=10))
def test_lines_come_out_whole_however_they_are_cut(pieces: list[str]) -> None:
    lines = LineSplitter()
    found = [line for piece in pieces if piece for line in lines.feed(piece.encode())] + lines.feed(b"")
    assert found == [line for line in "".join(pieces).split("\n") if line]


def test_an_endless_line_is_cut() -> None:
    assert LineSplitter(longest=10).feed(b"x" * 20) == ["x" * 20]
