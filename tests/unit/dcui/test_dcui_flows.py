"""What the console UI does: keys in, questions out, answers back on the screen."""

from __future__ import annotations

import pytest
from console_models import HOST, LOCAL, STORES, VMS, Desk, home, signed_in
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
from thimble.dcui.pages import BACK, Editor, Form, Menu, Proposal, Text, Trial, Wait
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
    desk = Desk()
    desk.passes(10)
    asked = [one for one in desk.effects if isinstance(one, Ask)]
    assert {one.verb for one in asked} == {"host.get", "datastore.list"}
    assert {one.token for one in asked} == {""}
    assert {BY_NAME[one.verb].role for one in asked} == {Role.VIEWER}


@pytest.mark.parametrize("key", ["f2", "f12", "enter", "p", "l"])
def test_everything_but_the_status_needs_a_sign_in(key: str) -> None:
    desk = Desk()
    desk.keys(key)
    assert isinstance(desk.model.page, Form)
    assert desk.model.page.kind == "sign-in"


def test_the_password_is_in_no_page_once_it_was_sent() -> None:
    desk = Desk()
    desk.keys("f2")
    desk.types("correct horse")
    desk.keys("enter")
    assert desk.asked("session.create").input.password == "correct horse"
    assert "correct horse" not in repr(desk.model)
    desk.answers("session.create", Session(token="t", user="admin", role=Role.ADMIN, expires=0.0))
    assert "correct horse" not in repr(desk.model)
    assert isinstance(desk.model.page, Menu)


def test_what_wanted_the_sign_in_follows_it() -> None:
    desk = Desk()
    desk.keys("f12")
    desk.types("x")
    desk.keys("enter")
    desk.answers("session.create", Session(token="t", user="admin", role=Role.ADMIN, expires=0.0))
    assert desk.model.page is not None
    assert desk.model.page.title == "Restart or shut down"


def test_a_session_that_is_over_leads_back_to_the_status() -> None:
    desk = signed_in()
    desk.keys("1")
    desk.fails("vm.list", Problem(Code.UNAUTHENTICATED, "the session has expired"))
    assert desk.model.session is None
    assert desk.model.page is None
    assert "sign in again" in desk.model.toast


def test_nobody_typing_for_ten_minutes_ends_it_and_the_session() -> None:
    desk = signed_in()
    desk.passes(599)
    assert not [one for one in desk.effects if isinstance(one, Quit)]
    desk.passes(2)
    assert [one for one in desk.effects if isinstance(one, Quit)] == [Quit("t0ken")]


def test_the_host_is_looked_at_only_while_its_status_is_shown() -> None:
    desk = signed_in()
    desk.passes(10)
    assert not [one for one in desk.effects if isinstance(one, Ask)]
    desk.keys("esc")
    desk.passes(1)
    assert desk.asked("host.get")


def test_a_question_under_way_is_not_asked_again() -> None:
    desk = Desk()
    for _ in range(5):
        desk.passes(10)
    assert len([one for one in desk.effects if isinstance(one, Ask) and one.verb == "host.get"]) == 1
    desk.answers("host.get", HOST)
    desk.answers("datastore.list", DatastoreList(rev=1, datastores=STORES))
    desk.passes(10)
    assert len([one for one in desk.effects if isinstance(one, Ask) and one.verb == "host.get"]) == 2


def test_an_agent_that_does_not_answer_is_said_and_its_return_too() -> None:
    desk = Desk()
    desk.passes(10)
    desk.fails("host.get", Problem(Code.UNAVAILABLE, "connection refused"))
    assert desk.model.silent == "connection refused"
    desk.passes(10)
    desk.answers("host.get", HOST)
    assert desk.model.silent == ""


def test_without_an_agent_the_host_is_restarted_through_pid_1_after_a_question() -> None:
    desk = Desk(replace(home(), silent="connection refused"))
    desk.keys("f12", "1")
    assert isinstance(desk.model.page, Proposal)
    assert not [one for one in desk.effects if isinstance(one, TellInit)]
    desk.keys("enter")
    assert TellInit("reboot") in desk.effects


def test_without_an_agent_and_without_pid_1_nothing_is_offered() -> None:
    desk = Desk(replace(home(), silent="refused", local=replace(LOCAL, managed=False)))
    desk.keys("f12", "2")
    assert isinstance(desk.model.page, Proposal)
    assert desk.model.page.act is None


def test_without_an_agent_the_log_is_read_from_memory() -> None:
    desk = Desk(replace(home(), silent="refused"))
    desk.keys("l")
    assert Look(log=True) in desk.effects
    desk.send(Looked(LOCAL, ("1.0 boot: hello",)))
    assert isinstance(desk.model.page, Text)
    assert desk.model.page.lines == ("1.0 boot: hello",)


def test_a_restart_shows_what_it_does_before_it_does_it() -> None:
    desk = signed_in()
    desk.keys("f12", "1")
    assert desk.asked("host.reboot").dry_run
    desk.answers("host.reboot", DryRun(possible=True, effects=(Effect(what="ends 9 running VMs"),)))
    page = desk.model.page
    assert isinstance(page, Proposal)
    assert page.effects == ("ends 9 running VMs",)
    desk.keys("enter")
    assert not desk.asked("host.reboot").dry_run


def test_what_cannot_be_done_is_not_done_by_any_key() -> None:
    desk = signed_in()
    desk.keys("f12", "2")
    desk.answers("host.shutdown", DryRun(possible=False))
    desk.keys("y", "f2", "enter")
    assert all(one.dry_run for one in desk.effects if isinstance(one, Ask) and one.verb == "host.shutdown")


def vms() -> Desk:
    desk = signed_in()
    desk.keys("1")
    desk.answers("vm.list", VmList(rev=1, vms=VMS))
    return desk


def test_only_what_is_allowed_is_offered() -> None:
    desk = vms()
    desk.keys("down", "enter")
    page = desk.model.page
    assert isinstance(page, Menu)
    assert [item.label for item in page.items] == ["Start", "Last serial output"]


def test_a_task_is_polled_until_it_is_done() -> None:
    desk = vms()
    desk.keys("down", "enter", "1")
    desk.answers("vm.start", Started(task=running(), subject="vm-1"))
    assert isinstance(desk.model.page, Wait)
    desk.passes(1)
    desk.answers("task.get", running(0.9))
    desk.passes(1)
    desk.answers("task.get", running(1.0, TaskState.DONE))
    assert isinstance(desk.model.page, Menu)
    assert "Start: database" in desk.model.toast


def test_a_task_that_fails_says_why_and_what_to_do() -> None:
    desk = vms()
    desk.keys("down", "enter", "1")
    problem = Problem(Code.NO_MEMORY, "there is no memory for it", hint="Stop another one.")
    failed = replace(running(state=TaskState.FAILED), problem=problem.document())
    desk.answers("vm.start", Started(task=failed, subject="vm-1"))
    page = desk.model.page
    assert isinstance(page, Text)
    assert page.lines == ("there is no memory for it", "", "Stop another one.")


def test_the_cursor_stays_on_its_vm_when_the_list_changes() -> None:
    desk = vms()
    desk.keys("down")
    desk.passes(10)
    desk.answers("vm.list", VmList(rev=2, vms=VMS[1:]))
    desk.keys("enter")
    assert desk.model.page is not None
    assert desk.model.page.title == "database"


def test_a_vm_that_is_gone_is_said() -> None:
    desk = vms()
    desk.keys("enter")
    desk.passes(10)
    desk.answers("vm.list", VmList(rev=2, vms=()))
    desk.keys("enter")
    assert "gone" in desk.model.toast


def test_a_console_is_opened_with_the_persons_own_token_and_left_again() -> None:
    desk = vms()
    desk.keys("enter", "6")
    assert Attach(VMS[0].id, "web1", "t0ken") in desk.effects
    desk.send(Detached("The console was closed."))
    assert desk.model.toast == "The console was closed."


def test_the_two_new_passwords_must_be_the_same() -> None:
    desk = signed_in()
    desk.keys("5")
    for word in ("the old one", "the new one", "another new one"):
        desk.types(word)
        desk.keys("enter")
    page = desk.model.page
    assert isinstance(page, Form)
    assert page.note == ("The two new passwords are not the same.",)
    assert page.cursor == 0
    for word in ("the old one", "the new one", "the new one"):
        desk.types(word)
        desk.keys("enter")
    assert desk.asked("session.password").input.new == "the new one"
    desk.answers("session.password", Nothing())
    assert "changed" in desk.model.toast


def test_a_pasted_document_is_kept_when_the_editor_is_left() -> None:
    desk = signed_in()
    desk.keys("3", "3")
    desk.types("[vm]")
    desk.keys("esc")
    page = desk.model.page
    assert isinstance(page, Menu)
    desk.keys("esc", "3", "2")
    page = desk.model.page
    assert isinstance(page, Editor)
    assert page.lines[-1] == "[vm]"


def test_the_document_found_at_boot_is_shown_before_it_is_used() -> None:
    desk = signed_in()
    desk.keys("3", "1")
    load = next(one for one in desk.effects if isinstance(one, Load))
    assert load.where == LOCAL.document
    from thimble.dcui.model import Answer

    desk.send(Answer(load, "format = 1\r\n"))
    page = desk.model.page
    assert isinstance(page, Editor)
    assert page.text == "format = 1\n"


def test_a_trial_of_the_network_that_nobody_keeps_is_said_to_be_over() -> None:
    from test_dcui_screens import network_on_trial

    desk = network_on_trial()
    assert isinstance(desk.model.page, Trial)
    desk.passes(80)
    assert isinstance(desk.model.page, Trial)
    desk.passes(20)
    assert not isinstance(desk.model.page, Trial)
    assert "goes back" in desk.model.toast


def test_the_network_is_kept_over_a_fresh_connection() -> None:
    from test_dcui_screens import network_on_trial

    desk = network_on_trial()
    desk.keys("k")
    assert desk.asked("management.confirm").fresh


def test_a_refresh_measures_the_terminal_anew() -> None:
    desk = Desk()
    desk.keys("f5")
    assert Measure() in desk.effects


def test_the_log_and_the_tasks_can_be_read() -> None:
    desk = signed_in()
    desk.keys("7")
    desk.answers("host.log", HostLog(lines=("one", "two")))
    assert isinstance(desk.model.page, Text)
    desk.keys("f5")
    desk.answers("host.log", HostLog(lines=("one", "two", "three")))
    assert len(desk.model.pages) == 2
    assert desk.model.page.lines[-1] == "three"
    desk.keys("esc", "6")
    desk.answers("task.list", TaskList(rev=1, tasks=(running(),)))
    page = desk.model.page
    assert isinstance(page, Text)
    assert "vm.stop" in page.lines[0]


def test_every_answer_that_is_waited_for_is_understood() -> None:
    assert {"session", "vms", "management", "deploy", "document.plan", "proposed", "started", "task"} <= set(
        ANSWERS
    )


def test_a_document_that_changes_the_network_puts_that_on_trial() -> None:
    from test_dcui_screens import NET, planned

    desk = planned()
    desk.keys("enter")
    assert desk.asked("document.apply").input.confirm_within > 0
    desk.answers("document.apply", Started(task=running(1.0, TaskState.DONE), subject="document"))
    pending = PendingNet(until=desk.model.clock + 80, left_s=80, previous=NET)
    desk.answers("management.get", Management(rev=2, managed=True, settings=NET, pending=pending))
    assert isinstance(desk.model.page, Trial)


def test_the_last_line_of_a_text_can_be_emptied_and_written_again() -> None:
    editor = Editor(title="", lines=("a", "b"), act=BACK, row=1)
    after, _ = editor.key("ctrl k")
    assert isinstance(after, Editor)
    assert (after.lines, after.row, after.col) == (("a", ""), 1, 0)
