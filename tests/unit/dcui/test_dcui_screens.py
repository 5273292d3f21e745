"""The screens as they are: golden files, one per screen and size. `THIMBLE_GOLDEN=write` writes them anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from console_models import LOCAL, VMS, FakeConsole, home, signed_in
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from thimble.contract.common import DryRun, Effect, Task, TaskState
from thimble.contract.deploy import Deploy, Outcome, OutcomeState, Slot, SlotState
from thimble.contract.document_api import DocumentPlan, PlannedEffect
from thimble.contract.management import Management, ManagementSettings, PendingNet
from thimble.contract.verbs import Started
from thimble.contract.vm import VmList
from thimble.core.problem import Code, Problem, Reason
from thimble.dcui.draw import width
from thimble.dcui.model import KeyPress, Model
from thimble.dcui.update import update
from thimble.dcui.view import view

GOLDEN = Path(__file__).parent / "golden"
NET = ManagementSettings(address="10.0.0.7/24", gateway="10.0.0.1", dns=("10.0.0.1",))


def listed() -> FakeConsole:
    console = signed_in()
    console.keys("1")
    console.answers("vm.list", VmList(rev=1, vms=VMS))
    return console


def one_vm() -> FakeConsole:
    console = listed()
    console.keys("enter", "down")
    return console


def network() -> FakeConsole:
    console = signed_in()
    console.keys("2")
    console.answers("management.get", Management(rev=3, managed=True, settings=NET))
    return console


def network_proposed() -> FakeConsole:
    console = network()
    console.keys("down", "down", "ctrl u")
    console.types("10.0.0.8/24")
    console.keys("f2")
    effects = (Effect(what="sets address of the management network to 10.0.0.8/24"),)
    console.answers("management.change", DryRun(possible=True, effects=effects))
    return console


def network_on_trial() -> FakeConsole:
    console = network_proposed()
    console.keys("enter")
    pending = PendingNet(until=console.model.clock + 88, left_s=88, previous=NET, in_force=True)
    now = replace(NET, address="10.0.0.8/24")
    console.answers("management.change", Management(rev=4, managed=True, settings=now, pending=pending))
    return console


def editor() -> FakeConsole:
    console = signed_in()
    console.keys("3", "3")
    console.types("[[switch]]")
    console.keys("enter")
    console.types('name = "lan"')
    return console


def planned() -> FakeConsole:
    console = editor()
    console.keys("f2")
    effects = (
        PlannedEffect(what="creates switch lan on port 3c:ec:ef:12:34:57", subject="switch lan", verbs=()),
    )
    plan = DocumentPlan(sha256="0" * 64, effects=effects, warnings=(), drift=("VM web1",))
    console.answers("document.plan", plan)
    return console


def document_wrong() -> FakeConsole:
    console = editor()
    console.keys("f2")
    reasons = (
        Reason(message="unknown field `nmae`", path="$.switch[0].nmae", line=6, column=1),
        Reason(message="the field `kind` is missing", path="$.switch[0]", line=5, column=1),
    )
    hint = "docs/document.md has every field."
    console.fails(
        "document.plan", Problem(Code.INVALID, "the document has 2 errors", hint=hint, reasons=reasons)
    )
    return console


def deploy() -> FakeConsole:
    console = signed_in()
    console.keys("4")
    last = Outcome(
        kind="update",
        state=OutcomeState.FAILED,
        slot="b",
        version="0.2.0",
        build="b2",
        from_version="0.1.0",
        from_build="b1",
        begun=0.0,
        why="the management network did not answer",
    )
    slots = (
        Slot(slot="a", state=SlotState.GOOD, version="0.1.0", running=True),
        Slot(slot="b", state=SlotState.BAD, version="0.2.0"),
    )
    console.answers(
        "deploy.get",
        Deploy(
            firmware="uefi",
            secure_boot=True,
            medium="disk",
            installed=True,
            build="b1",
            version="0.1.0",
            trial=False,
            slots=slots,
            last=last,
        ),
    )
    return console


def updating() -> FakeConsole:
    console = deploy()
    console.keys("2")
    console.types("https://10.0.0.2/thimble.efi")
    console.keys("f2")
    console.answers("deploy.update", DryRun(possible=True, effects=(Effect(what="writes slot b"),)))
    console.keys("enter")
    task = Task(
        id="t1", verb="deploy.update", subject="host", state=TaskState.RUNNING, step="fetch", progress=0.4
    )
    console.answers("deploy.update", Started(task=task, subject="host"))
    return console


def in_the_way() -> FakeConsole:
    console = signed_in()
    console.keys("4")
    console.answers(
        "deploy.get",
        Deploy(
            firmware="bios",
            secure_boot=False,
            medium="cd",
            installed=False,
            build="b",
            version="0.1.0",
            trial=False,
        ),
    )
    console.keys("1", "f2")
    blockers = (Reason(message="/dev/sda has partitions: say `erase` to lose them", path="$.disk"),)
    console.answers("deploy.install", DryRun(possible=False, blockers=blockers))
    return console


def silent() -> FakeConsole:
    return FakeConsole(replace(home(), host=None, silent="cannot reach 127.0.0.1:443: connection refused"))


def password() -> FakeConsole:
    console = signed_in()
    console.keys("5")
    console.types("old one")
    console.keys("enter")
    return console


def sign_in() -> FakeConsole:
    console = FakeConsole()
    console.keys("f2")
    console.types("wrong")
    console.keys("enter")
    problem = Problem(Code.UNAUTHENTICATED, "the user name or the password is wrong")
    console.fails("session.create", problem)
    return console


SCREENS: dict[str, Callable[[], FakeConsole]] = {
    "home": FakeConsole,
    "silent": silent,
    "sign-in": sign_in,
    "menu": signed_in,
    "vms": listed,
    "vm": one_vm,
    "network": network,
    "network-proposed": network_proposed,
    "network-on-trial": network_on_trial,
    "editor": editor,
    "document-planned": planned,
    "document-wrong": document_wrong,
    "deploy": deploy,
    "updating": updating,
    "in-the-way": in_the_way,
    "password": password,
}
SIZES = [(80, 24)]
CASES = [(name, 80, 24) for name in SCREENS] + [
    ("home", 132, 43),
    ("home", 40, 12),
    ("vms", 40, 12),
    ("home", 20, 5),
]


def drawn(model: Model, w: int, h: int, *, utf8: bool = False) -> str:
    frame = view(model, w, h, utf8=utf8)
    lines = ["".join(text for _, text in row).rstrip() for row in frame.rows]
    if frame.cursor:
        lines.append(f"cursor {frame.cursor[0]},{frame.cursor[1]}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("name", "w", "h"), CASES)
def test_the_screen_is_the_golden_one(name: str, w: int, h: int) -> None:
    file = GOLDEN / f"{name}-{w}x{h}.txt"
    now = drawn(SCREENS[name]().model, w, h)
    if os.environ.get("THIMBLE_GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(now)
    assert now == file.read_text()


NAMES = st.sampled_from(
    [
        "enter",
        "esc",
        "up",
        "down",
        "left",
        "right",
        "tab",
        "shift tab",
        "page up",
        "page down",
        "home",
        "end",
        "backspace",
        "delete",
        "f1",
        "f2",
        "f5",
        "f12",
        "ctrl l",
        "ctrl d",
        "ctrl k",
        "ctrl u",
        "meta x",
        "<0>",
        "insert",
        "window resize",
        "ctrl mouse",
        "\x00",
        "é",
        "漢",
        "\u0301",
        "k",
        "u",
        "y",
        "1",
        "2",
        "9",
        " ",
        "x",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(SCREENS)),
    typed=st.lists(NAMES, max_size=25),
    w=st.integers(1, 300),
    h=st.integers(1, 100),
    utf8=st.booleans(),
)
def test_no_key_and_no_size_breaks_a_screen(name: str, typed: list[str], w: int, h: int, utf8: bool) -> None:
    model = SCREENS[name]().model
    for key in typed:
        model, _ = update(model, KeyPress(key))
    frame = view(model, w, h, utf8=utf8)
    assert len(frame.rows) == h
    assert {width(row) for row in frame.rows} == {w}
    if frame.cursor is not None:
        assert 0 <= frame.cursor[0] < w
        assert 0 <= frame.cursor[1] < h
    assert utf8 or all(text.isascii() for row in frame.rows for _, text in row)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200), st.booleans())
def test_whatever_a_host_says_takes_one_column_per_letter(words: str, utf8: bool) -> None:
    local = replace(LOCAL, warnings=(words,), last_words=(words,), hostname=words)
    model = replace(silent().model, local=local, silent=words, toast=words, toast_until=1e9)
    for row in view(model, 61, 17, utf8=utf8).rows:
        text = "".join(part for _, part in row)
        assert len(text) == 61
        assert text.isprintable()
