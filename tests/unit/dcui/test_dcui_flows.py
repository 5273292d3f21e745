"""What the console UI does: keys in, questions out, answers back on the screen."""

from __future__ import annotations

import pytest
from console_models import HOST, LOCAL, STORES, VMS, FakeConsole, home, signed_in
from msgspec.structs import replace

from thimble.contract.common import DryRun, Effect, Nothing, Task, TaskState
from thimble.contract.host import HostLog, Role, Session, TaskList
from thimble.contract.management import Management, PendingNet
from thimble.contract.storage import DatastoreList
from thimble.contract.verbs import BY_NAME, Started
from thimble.contract.vm import VmList
from thimble.core.problem import Code, Problem
from thimble.dcui import flow_session, flow_vms
from thimble.dcui.model import Ask, Attach, Detached, Load, Look, Looked, Measure, Quit, TellInit
from thimble.dcui.pages import BACK, ConfirmPage, Editor, Form, Menu, Proposal, Text, Wait
from thimble.dcui.update import ACTS, ANSWERS, FLOWS


def running(progress: float = 0.5, state: TaskState = TaskState.RUNNING) -> Task:
    return Task(id="t1", verb="vm.stop", subject="vm-1", state=state, progress=progress)


def test_every_act_a_page_can_ask_for_exists() -> None:
    for module in FLOWS:
        for name, value in module.ACTS.items():
            assert ACTS[name] is value
    for item in flow_session.MENU:
        assert item.act.name in ACTS
    for verb in flow_vms.VERBS:
        assert f"vm.{verb}" in BY_NAME


def test_before_sign_in_only_the_status_is_asked_and_with_the_consoles_own_token() -> None:
    console = FakeConsole()
    console.passes(10)
    asked = [one for one in console.effects if isinstance(one, Ask)]
    assert {one.verb for one in asked} == {"host.get", "datastore.list"}
    assert {one.token for one in asked} == {""}
    assert {BY_NAME[one.verb].role for one in asked} == {Role.VIEWER}


@pytest.mark.parametrize("key", ["f2", "f12", "enter", "p", "l"])
def test_everything_but_the_status_needs_a_sign_in(key: str) -> None:
    console = FakeConsole()
    console.keys(key)
    assert isinstance(console.model.page, Form)
    assert console.model.page.kind == "sign-in"


def test_the_password_is_in_no_page_once_it_was_sent() -> None:
    console = FakeConsole()
    console.keys("f2")
    console.types("correct horse")
    console.keys("enter")
    assert console.asked("session.create").input.password == "correct horse"
    assert "correct horse" not in repr(console.model)
    console.answers("session.create", Session(token="t", user="admin", role=Role.ADMIN, expires=0.0))
    assert "correct horse" not in repr(console.model)
    assert isinstance(console.model.page, Menu)


def test_what_wanted_the_sign_in_follows_it() -> None:
    console = FakeConsole()
    console.keys("f12")
    console.types("x")
    console.keys("enter")
    console.answers("session.create", Session(token="t", user="admin", role=Role.ADMIN, expires=0.0))
    assert console.model.page is not None
    assert console.model.page.title == "Restart or shut down"


def test_a_session_that_is_over_leads_back_to_the_status() -> None:
    console = signed_in()
    console.keys("1")
    console.fails("vm.list", Problem(Code.UNAUTHENTICATED, "the session has expired"))
    assert console.model.session is None
    assert console.model.page is None
    assert "sign in again" in console.model.toast


def test_nobody_typing_for_ten_minutes_ends_it_and_the_session() -> None:
    console = signed_in()
    console.passes(599)
    assert not [one for one in console.effects if isinstance(one, Quit)]
    console.passes(2)
    assert [one for one in console.effects if isinstance(one, Quit)] == [Quit("t0ken")]


def test_the_host_is_looked_at_only_while_its_status_is_shown() -> None:
    console = signed_in()
    console.passes(10)
    assert not [one for one in console.effects if isinstance(one, Ask)]
    console.keys("esc")
    console.passes(1)
    assert console.asked("host.get")


def test_a_question_under_way_is_not_asked_again() -> None:
    console = FakeConsole()
    for _ in range(5):
        console.passes(10)
    assert len([one for one in console.effects if isinstance(one, Ask) and one.verb == "host.get"]) == 1
    console.answers("host.get", HOST)
    console.answers("datastore.list", DatastoreList(rev=1, datastores=STORES))
    console.passes(10)
    assert len([one for one in console.effects if isinstance(one, Ask) and one.verb == "host.get"]) == 2


def test_an_agent_that_does_not_answer_is_said_and_its_return_too() -> None:
    console = FakeConsole()
    console.passes(10)
    console.fails("host.get", Problem(Code.UNAVAILABLE, "connection refused"))
    assert console.model.silent == "connection refused"
    console.passes(10)
    console.answers("host.get", HOST)
    assert console.model.silent == ""


def test_without_an_agent_the_host_is_restarted_through_pid_1_after_a_question() -> None:
    console = FakeConsole(replace(home(), silent="connection refused"))
    console.keys("f12", "1")
    assert isinstance(console.model.page, Proposal)
    assert not [one for one in console.effects if isinstance(one, TellInit)]
    console.keys("enter")
    assert TellInit("reboot") in console.effects


def test_without_an_agent_and_without_pid_1_nothing_is_offered() -> None:
    console = FakeConsole(replace(home(), silent="refused", local=replace(LOCAL, managed=False)))
    console.keys("f12", "2")
    assert isinstance(console.model.page, Proposal)
    assert console.model.page.act is None


def test_without_an_agent_the_log_is_read_from_memory() -> None:
    console = FakeConsole(replace(home(), silent="refused"))
    console.keys("l")
    assert Look(log=True) in console.effects
    console.send(Looked(LOCAL, ("1.0 boot: hello",)))
    assert isinstance(console.model.page, Text)
    assert console.model.page.lines == ("1.0 boot: hello",)


def test_a_restart_shows_what_it_does_before_it_does_it() -> None:
    console = signed_in()
    console.keys("f12", "1")
    assert console.asked("host.reboot").dry_run
    console.answers("host.reboot", DryRun(possible=True, effects=(Effect(what="ends 9 running VMs"),)))
    page = console.model.page
    assert isinstance(page, Proposal)
    assert page.effects == ("ends 9 running VMs",)
    console.keys("enter")
    assert not console.asked("host.reboot").dry_run


def test_what_cannot_be_done_is_not_done_by_any_key() -> None:
    console = signed_in()
    console.keys("f12", "2")
    console.answers("host.shutdown", DryRun(possible=False))
    console.keys("y", "f2", "enter")
    assert all(one.dry_run for one in console.effects if isinstance(one, Ask) and one.verb == "host.shutdown")


def vms() -> FakeConsole:
    console = signed_in()
    console.keys("1")
    console.answers("vm.list", VmList(rev=1, vms=VMS))
    return console


def test_only_what_is_allowed_is_offered() -> None:
    console = vms()
    console.keys("down", "enter")
    page = console.model.page
    assert isinstance(page, Menu)
    assert [item.label for item in page.items] == ["Start", "Last serial output"]


def test_a_task_is_polled_until_it_is_done() -> None:
    console = vms()
    console.keys("down", "enter", "1")
    console.answers("vm.start", Started(task=running(), subject="vm-1"))
    assert isinstance(console.model.page, Wait)
    console.passes(1)
    console.answers("task.get", running(0.9))
    console.passes(1)
    console.answers("task.get", running(1.0, TaskState.DONE))
    assert isinstance(console.model.page, Menu)
    assert "Start: database" in console.model.toast


def test_a_task_that_fails_says_why_and_what_to_do() -> None:
    console = vms()
    console.keys("down", "enter", "1")
    problem = Problem(Code.NO_MEMORY, "there is no memory for it", hint="Stop another one.")
    failed = replace(running(state=TaskState.FAILED), problem=problem.document())
    console.answers("vm.start", Started(task=failed, subject="vm-1"))
    page = console.model.page
    assert isinstance(page, Text)
    assert page.lines == ("there is no memory for it", "", "Stop another one.")


def test_the_cursor_stays_on_its_vm_when_the_list_changes() -> None:
    console = vms()
    console.keys("down")
    console.passes(10)
    console.answers("vm.list", VmList(rev=2, vms=VMS[1:]))
    console.keys("enter")
    assert console.model.page is not None
    assert console.model.page.title == "database"


def test_a_vm_that_is_gone_is_said() -> None:
    console = vms()
    console.keys("enter")
    console.passes(10)
    console.answers("vm.list", VmList(rev=2, vms=()))
    console.keys("enter")
    assert "no longer exists" in console.model.toast


def test_a_console_is_opened_with_the_persons_own_token_and_left_again() -> None:
    console = vms()
    console.keys("enter", "6")
    assert Attach(VMS[0].id, "web1", "t0ken") in console.effects
    console.send(Detached("The console was closed."))
    assert console.model.toast == "The console was closed."


def test_the_two_new_passwords_must_be_the_same() -> None:
    console = signed_in()
    console.keys("5")
    for word in ("the old one", "the new one", "another new one"):
        console.types(word)
        console.keys("enter")
    page = console.model.page
    assert isinstance(page, Form)
    assert page.note == ("The two new passwords differ.",)
    assert page.cursor == 0
    for word in ("the old one", "the new one", "the new one"):
        console.types(word)
        console.keys("enter")
    assert console.asked("session.password").input.new == "the new one"
    console.answers("session.password", Nothing())
    assert "changed" in console.model.toast


def test_a_pasted_document_is_kept_when_the_editor_is_left() -> None:
    console = signed_in()
    console.keys("3", "3")
    console.types("[vm]")
    console.keys("esc")
    page = console.model.page
    assert isinstance(page, Menu)
    console.keys("esc", "3", "2")
    page = console.model.page
    assert isinstance(page, Editor)
    assert page.lines[-1] == "[vm]"


def test_the_document_found_at_boot_is_shown_before_it_is_used() -> None:
    console = signed_in()
    console.keys("3", "1")
    load = next(one for one in console.effects if isinstance(one, Load))
    assert load.where == LOCAL.document
    from thimble.dcui.model import Answer

    console.send(Answer(load, "format = 1\r\n"))
    page = console.model.page
    assert isinstance(page, Editor)
    assert page.text == "format = 1\n"


def test_a_trial_of_the_network_that_nobody_keeps_is_said_to_be_over() -> None:
    from test_dcui_screens import network_on_trial

    console = network_on_trial()
    assert isinstance(console.model.page, ConfirmPage)
    console.passes(80)
    assert isinstance(console.model.page, ConfirmPage)
    console.passes(20)
    assert not isinstance(console.model.page, ConfirmPage)
    assert "has its old settings again" in console.model.toast


def test_the_network_is_kept_over_a_fresh_connection() -> None:
    from test_dcui_screens import network_on_trial

    console = network_on_trial()
    console.keys("k")
    assert console.asked("management.confirm").fresh


def test_a_refresh_measures_the_terminal_anew() -> None:
    console = FakeConsole()
    console.keys("f5")
    assert Measure() in console.effects


def test_the_log_and_the_tasks_can_be_read() -> None:
    console = signed_in()
    console.keys("7")
    console.answers("host.log", HostLog(lines=("one", "two")))
    assert isinstance(console.model.page, Text)
    console.keys("f5")
    console.answers("host.log", HostLog(lines=("one", "two", "three")))
    assert len(console.model.pages) == 2
    assert console.model.page.lines[-1] == "three"
    console.keys("esc", "6")
    console.answers("task.list", TaskList(rev=1, tasks=(running(),)))
    page = console.model.page
    assert isinstance(page, Text)
    assert "vm.stop" in page.lines[0]


def test_every_answer_that_is_waited_for_is_understood() -> None:
    assert {"session", "vms", "management", "deploy", "document.plan", "proposed", "started", "task"} <= set(
        ANSWERS
    )


def test_a_document_that_changes_the_network_puts_that_on_trial() -> None:
    from test_dcui_screens import NET, planned

    console = planned()
    console.keys("enter")
    assert console.asked("document.apply").input.confirm_within > 0
    console.answers("document.apply", Started(task=running(1.0, TaskState.DONE), subject="document"))
    pending = PendingNet(until=console.model.clock + 80, left_s=80, previous=NET)
    console.answers("management.get", Management(rev=2, managed=True, settings=NET, pending=pending))
    assert isinstance(console.model.page, ConfirmPage)


def test_the_last_line_of_a_text_can_be_emptied_and_written_again() -> None:
    editor = Editor(title="", lines=("a", "b"), act=BACK, row=1)
    after, _ = editor.key("ctrl k")
    assert isinstance(after, Editor)
    assert (after.lines, after.row, after.col) == (("a", ""), 1, 0)
