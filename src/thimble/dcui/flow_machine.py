"""Restart and power off, the log, the tasks: with the agent, and as far as possible without it. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from thimble.contract.common import Task
from thimble.contract.host import PowerRequest
from thimble.dcui import actions
from thimble.dcui.flow_session import sign_in
from thimble.dcui.model import Answer, Ask, Look, Looked, Measure, Model, Step, TellInit
from thimble.dcui.pages import Act, Item, Menu, Proposal, Text, Wait


def refresh(model: Model, _arg: str) -> Step:
    """Refresh, and read the terminal's size again."""
    model = replace(model, refreshed=-1e9)
    if model.page is None or model.page.kind != "log":
        return model, (Measure(),)
    model, effects = log(model, "")
    return model, (Measure(), *effects)


def power(model: Model, _arg: str) -> Step:
    """With an agent it needs a sign-in; without one whoever is at the machine has its buttons as well."""
    if model.session is None and not model.silent:
        return sign_in(model, "power")
    items = (
        Item("Restart", Act("power.do", "reboot"), "Shut down the virtual machines, then restart the host."),
        Item("Shut down", Act("power.do", "shutdown"), "Shut down the virtual machines, then power off."),
    )
    return actions.push(model, Menu(title="Restart or shut down", items=items)), ()


def power_do(model: Model, which: str) -> Step:
    title = "Restart" if which == "reboot" else "Shut down"
    if not model.silent:
        return actions.propose(model, title, Ask(to="power", verb=f"host.{which}", input=PowerRequest()))
    verb = "reboot" if which == "reboot" else "poweroff"
    effects = ("restarts the host at once" if which == "reboot" else "powers the host off at once",)
    page = Proposal(
        title=title,
        effects=effects if model.local.managed else (),
        warnings=("the agent does not answer: virtual machines are killed without a shutdown",),
        blockers=()
        if model.local.managed
        else ("this machine is managed by another operating system: restart it there",),
        act=Act("power.init", verb) if model.local.managed else None,
    )
    return actions.push(model, page), ()


def power_init(model: Model, verb: str) -> Step:
    return actions.swap(model, Wait(title="Going down", note="sent to PID 1", since=model.now)), (
        TellInit(verb),
    )


def log(model: Model, _arg: str) -> Step:
    if model.silent:
        return model, (Look(log=True),)
    if model.session is None:
        return sign_in(model, "log")
    return actions.ask(model, Ask(to="log", verb="host.log", query={"lines": "1000"}))


def bundle(model: Model, _arg: str) -> Step:
    """A serial line cannot carry the file: shows how to download it."""
    addresses = (model.host.addresses if model.host else ()) or model.local.addresses
    where = f"[{addresses[0]}]" if addresses and ":" in addresses[0] else (*addresses, "this-host")[0]
    lines = (
        "Inventory, sensors, health, log, tasks and settings, without passwords, keys and guests' data.",
        "From a computer that reaches this host, as an admin:",
        "",
        f"thimble --host https://{where} host bundle",
        "",
        f"or in a browser that is signed in: https://{where}/api/v1/host/bundle",
    )
    return actions.push(model, Text(title="Support bundle", lines=lines)), ()


def show_log(model: Model, lines: tuple[str, ...]) -> Step:
    page = Text(
        title="Log",
        kind="log",
        lines=lines or ("nothing yet",),
        top=max(0, len(lines) - 16),
        hint="Arrows, Page up and down; F5 again",
    )
    if any(old.kind == "log" for old in model.pages):
        return actions.change(model, "log", page), ()
    return actions.push(model, page), ()


def logged(model: Model, answer: Answer) -> Step:
    return show_log(model, answer.value.lines)


def looked(model: Model, message: Looked) -> Step:
    model = replace(model, local=message.local)
    return show_log(model, message.log) if message.log is not None else (model, ())


def tasks(model: Model, _arg: str) -> Step:
    page = Text(title="Tasks", kind="tasks", lines=("looking ...",), hint="Newest first")
    return actions.ask(actions.push(model, page), Ask(to="tasks", verb="task.list"))


def tasks_come(model: Model, answer: Answer) -> Step:
    found = next((page for page in model.pages if page.kind == "tasks"), None)
    if not isinstance(found, Text):
        return model, ()
    lines = tuple(task_line(task) for task in answer.value.tasks) or ("no tasks yet",)
    return actions.change(model, "tasks", replace(found, lines=lines)), ()


def task_line(task: Task) -> str:
    percent = f" {task.progress:.0%}" if task.ended is None else ""
    why = f": {task.problem.detail}" if task.problem else ""
    owner = f" by {task.owner}" if task.owner else ""
    return f"{actions.moment(task.created)} {task.verb} {task.subject} {task.state}{percent}{owner}{why}"


ACTS = {
    "refresh": refresh,
    "power": power,
    "power.do": power_do,
    "power.init": power_init,
    "log": log,
    "tasks": tasks,
    "bundle": bundle,
}
ANSWERS = {
    "log": logged,
    "tasks": tasks_come,
}
