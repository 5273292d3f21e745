"""Tables fit, problems say everything, foreign text cannot drive the terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thimble.cli.tables import Column, facts, problem_text, safe, table
from thimble.core.problem import Code, Problem, Reason

COLUMNS = (Column("name", least=4), Column("size", right=True), Column("note", least=3))


def test_a_table_is_as_wide_as_its_contents() -> None:
    assert table(COLUMNS, [("web1", "1 GiB", ""), ("a", "512 MiB", "x")]) == (
        "NAME     SIZE  NOTE\n"
        "web1    1 GiB\n"
        "a     512 MiB  x"
    )  # fmt: skip


def test_the_longest_column_gives_way_first() -> None:
    shown = table(COLUMNS, [("n" * 10, "1 GiB", "why" * 20)], width=40)
    assert shown.splitlines()[1] == "nnnnnnnnnn  1 GiB  whywhywhywhywhywhywh…"


@given(
    st.lists(st.tuples(st.text(max_size=60), st.just("1 GiB"), st.text(max_size=60)), max_size=5),
    st.integers(20, 100),
)
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, str, str]], width: int) -> None:
    import unicodedata

    for line in table(COLUMNS, rows, width=width).splitlines():
        wide = sum(unicodedata.east_asian_width(mark) in "WF" for mark in line)
        assert len([mark for mark in line if not unicodedata.combining(mark)]) + wide <= width


@given(st.text())
def test_a_row_is_always_one_line_without_control_characters(name: str) -> None:
    shown = table(COLUMNS, [(name, "", "")])
    assert len(shown.splitlines()) <= 2
    assert all(mark.isprintable() or mark == "\n" for mark in shown)


def test_facts_are_aligned_and_empty_ones_left_out() -> None:
    assert facts([("name", "web1"), ("why", ""), ("disks", "a\nb")]) == "name   web1\ndisks  a\n       b"


def test_a_problem_is_shown_with_every_reason_and_the_hint() -> None:
    problem = Problem(
        Code.INVALID,
        "the VM cannot be",
        hint="Change it.",
        reasons=(Reason(message="too small", path="$.disks[0].size_bytes"), Reason(message="no such switch")),
    )
    assert problem_text(problem) == (
        "error: the VM cannot be (invalid)\n"
        "  $.disks[0].size_bytes: too small\n"
        "  no such switch\n"
        "hint: Change it."
    )  # fmt: skip


def test_a_reason_that_only_repeats_is_not_shown_twice() -> None:
    problem = Problem(Code.NOT_FOUND, "no VM", reasons=(Reason(message="no VM"),))
    assert problem_text(problem) == "error: no VM (not-found)"


def test_a_guests_escapes_do_not_reach_the_terminal() -> None:
    assert safe("a\x1b[31mb\r\nc\td\x07") == "a[31mb\nc\td"


def test_what_a_host_starts_from_reads_as_a_page() -> None:
    from thimble.cli.deploy import details as deploy_details
    from thimble.contract.deploy import BootDevice, Deploy, Slot, SlotState

    found = Deploy(
        firmware="uefi", secure_boot=True, medium="disk", installed=True,
        build="b2", version="0.2.0", trial=True,
        slots=(
            Slot(slot="a", state=SlotState.GOOD, version="0.1.0", build="b1", number=1),
            Slot(
                slot="b", state=SlotState.TRIAL, version="0.2.0", build="b2",
                number=2, running=True, tries_left=2,
            ),
        ),
        devices=(
            BootDevice(disk="/dev/sda", booted=True, in_step=True),
            BootDevice(disk="/dev/sdb", booted=False, in_step=False, problem="slot b is another one there"),
        ),
        mirror="healthy",
    )  # fmt: skip
    assert deploy_details(found).splitlines() == [
        "firmware      UEFI, Secure Boot",
        "started from  /dev/sda and /dev/sdb, installed",
        "running       0.2.0, build b2, on trial",
        "slot a        0.1.0, build b1, good",
        "slot b        0.2.0, build b2, trial, 2 tries left, running",
        "mirror        healthy",
        "out of sync   /dev/sdb: slot b is another one there",
        "updates       VMs as each one says, started by kexec",
    ]
