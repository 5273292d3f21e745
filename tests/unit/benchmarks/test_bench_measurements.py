"""What is powered on, what is sent inside, and how samples become rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks import __main__ as command
from benchmarks import (
    blackout,
    catalogue,
    idle,
    listing,
    machine,
    media,
    minimal,
    power_on,
    start,
    thimble_server,
)
from benchmarks.inside.api import Api
from benchmarks.machine import Moment, System
from benchmarks.promise import Row, judge
from hypothesis import given, settings
from hypothesis import strategies as st

from thimble.core.problem import Problem

PROJECT = Path(__file__).resolve().parents[3]


def by_what(rows: list[Row]) -> dict[str, Row]:
    return {row.what: row for row in rows}


def system(disk: Path | None) -> System:
    return System(name="x", kernel=Path("k"), initrd=Path("i"), cmdline="quiet", ready=b"up", disk=disk)


def test_both_sides_get_the_same_server_but_for_the_disk() -> None:
    ours, theirs = machine.spec(system(None), None), machine.spec(system(Path("d")), Path("d.qcow2"))
    assert (ours.cpus, ours.memory_mib, ours.nested, ours.nics) == (2, 4096, True, theirs.nics)
    assert (theirs.cpus, theirs.memory_mib, theirs.nested) == (2, 4096, True)
    assert [disk.file for disk in theirs.disks] == ["d.qcow2"]
    assert ours.disks == ()


def test_sides_take_turns_and_swap_who_goes_first() -> None:
    went: list[str] = []
    machine.alternate(3, [lambda: went.append("a"), lambda: went.append("b")])
    assert "".join(went) == "abbaab"


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_what_comes_behind_an_initrd_begins_on_four_bytes(initrd: bytes) -> None:
    longer = thimble_server.extended(initrd, thimble_server.entries({"note": b"n"}))
    at = longer.index(b"070701", len(initrd))
    assert longer.startswith(initrd)
    assert at % 4 == 0
    assert at - len(initrd) < 4


def test_the_child_brings_everything_it_imports() -> None:
    paths = {entry.path: entry for entry in thimble_server.entries({"initrd": b"x"})}
    inside = Path(thimble_server.__file__).parent / "inside"
    wanted = {f"bench.d/benchmarks/inside/{path.name}" for path in inside.glob("*.py")} - {
        "bench.d/benchmarks/inside/bench.py"
    }
    assert wanted <= paths.keys()
    assert paths["bench.d/initrd"].data == b"x"
    assert paths["bench.py"].mode & 0o111
    assert paths["bench.py"].data.startswith(b"#!/")


def test_each_medium_is_compared_with_a_kernel_handed_over() -> None:
    samples = {way: [Moment(wall_s=number + 1.0, cpu_s=2.0)] for number, way in enumerate(media.WAYS)}
    rows = media.times(samples)
    assert len(rows) == 2 * (len(media.WAYS) - 1)
    assert rows[0].what == "img by uefi: wall"
    assert (rows[0].ours, rows[0].theirs) == ((2.0,), (1.0,))
    (size,) = media.sizes({"thimble.img": {"bytes": 3_000_000, "used_bytes": 1_000_000}})
    assert (size.ours, size.note) == ((3.0,), "1.0 MB of it used")


def test_the_black_out_lasts_from_the_last_answer_to_the_first_one_after_it() -> None:
    seconds = iter(range(100))
    answers = iter([True, True, False, False, True])
    dark = blackout.gap(lambda: next(answers), limit_s=90, clock=lambda: float(next(seconds)), nap_s=0)
    # Asked at 2, 4, 6, 8 and 10, and it is 11 when the fifth answer is there.
    assert dark == 7.0
    (row,) = blackout.rows([10.0], [40.0])
    assert (row.ours, row.theirs) == ((10.0,), (40.0,))


def test_a_host_that_never_goes_dark_is_not_measured() -> None:
    seconds = iter(range(100))
    with pytest.raises(Problem, match="no silence"):
        blackout.gap(lambda: True, limit_s=50, clock=lambda: float(next(seconds)), nap_s=0)


def test_power_on_is_kept_only_if_both_clock_and_processor_say_so() -> None:
    ours = [Moment(wall_s=4.0, cpu_s=10.0)]
    theirs = [Moment(wall_s=20.0, cpu_s=20.0)]
    wall, cpu = power_on.rows(ours, theirs)
    assert judge(wall).kept is True
    assert judge(cpu).kept is False


def test_start_pairs_the_api_with_the_hand_and_leaves_the_rest_as_context() -> None:
    samples: list[dict[str, Any]] = [
        {"side": "create", "seconds": 0.1, "cpu_s": 10.0},
        {"side": "argv", "argv": [], "accel": "kvm", "cpu_s": 12.0},
        {"side": "api-begins", "cpu_s": 13.0},
        {"side": "api", "seconds": 4.4, "answered": 0.02, "cpu_s": 18.5},
        {"side": "hand-begins", "cpu_s": 20.0},
        {"side": "hand", "seconds": 4.0, "cpu_s": 25.0},
    ]
    rows = by_what(start.rows(samples))
    line = rows["start call → guest's first line"]
    assert (line.ours, line.theirs) == ((4.4,), (4.0,))
    assert judge(line).kept is True
    processor = rows["the same, processor time of the virtual server"]
    assert (processor.ours, processor.theirs) == ((5.5,), (5.0,))
    assert rows["API call → VM created"].ours == (0.1,)
    assert rows["start call → answer"].promised is None


def test_idle_memory_is_what_is_not_available() -> None:
    ours = {
        "total_kib": 4096000,
        "available_kib": 3993600,
        "private_kib": 10240,
        "processes": 5,
        "cpu_s": 0.3,
        "agent_cpu_s": 0.1,
        "over_s": 30.0,
        "written_bytes": 2048,
        "by_process": [[8192, "thimble"]],
    }
    theirs = {**ours, "available_kib": 3891200, "private_kib": 20480}
    rows = by_what(idle.rows([ours], [theirs]))
    memory = rows["memory in use, image included"]
    private = rows["private memory of user processes"]
    assert (memory.ours, memory.theirs) == ((100.0,), (200.0,))
    assert judge(memory).kept is True
    assert judge(private).kept is False
    assert private.note == "thimble 8.0"
    assert rows["written to disk, a minute"].ours == (4.0,)
    assert rows["processor time of agent and PID 1, a minute"].ours == pytest.approx((0.2,))


@settings(deadline=None)
@given(st.integers(min_value=23, max_value=100_000))
def test_the_lists_peer_answers_json_of_the_size_asked_for(size: int) -> None:
    found = minimal.body(size)
    assert len(found) == size
    assert set(json.loads(found)) == {"vms", "pad"}


@pytest.mark.timeout(60)
def test_the_peer_is_asked_over_one_connection(tmp_path: Path) -> None:
    with listing.minimal_peer(tmp_path, 5000) as port:
        api = Api("", port=port, sign_in=False)
        assert [len(api.ask("GET", "/vms")) for _ in range(3)] == [5000, 5000, 5000]


def test_each_promise_is_chosen_by_its_name() -> None:
    names = [one.NAME for one in catalogue.PROMISES]
    assert len(names) == len(set(names))
    assert command.options(names).promise == names


def test_an_unknown_promise_and_a_senseless_number_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["frobnicate"], ["--rounds", "0"], ["--idle", "0"]):
        with pytest.raises(SystemExit) as refused:
            command.options(words)
        assert refused.value.code == 2
    assert "no such promise: frobnicate" in capsys.readouterr().err


def test_help_names_every_promise() -> None:
    argv = [sys.executable, "-m", "benchmarks", "--help"]
    said = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert all(one.TITLE in said for one in catalogue.PROMISES)
