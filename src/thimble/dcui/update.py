"""(model, message) → (model, effects). Pure: the whole behaviour of the console UI.

KeyPress  the page on top says what it means; function keys mean the same everywhere
Tick      time passes: refresh what is shown, poll a task, end when nobody has typed for long
Answer    of the API, by what it was asked for; Failed likewise
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from thimble.core.problem import Code
from thimble.dcui import (
    actions,
    flow_deploy,
    flow_document,
    flow_machine,
    flow_network,
    flow_session,
    flow_vms,
)
from thimble.dcui.model import (
    REFRESH_S,
    Answer,
    Ask,
    Detached,
    Effect,
    Failed,
    KeyPress,
    Look,
    Looked,
    Message,
    Model,
    Quit,
    Step,
    Tick,
)
from thimble.dcui.pages import Act, Editor, Wait

FLOWS = (flow_session, flow_machine, flow_vms, flow_network, flow_document, flow_deploy)
ACTS: dict[str, Callable[[Model, str], Step]] = {}
ANSWERS: dict[str, Callable[[Model, Answer], Step]] = {}
FAILURES: dict[str, Callable[[Model, Failed], Step]] = {}
for _flow in FLOWS:
    ACTS |= _flow.ACTS
    ANSWERS |= _flow.ANSWERS
    FAILURES |= getattr(_flow, "FAILURES", {})

#: On the status screen, where nothing else takes letters.
HOME = {
    "f2": Act("sign-in"), "enter": Act("sign-in"), "m": Act("sign-in"),
    "f12": Act("power"), "p": Act("power"), "l": Act("log"),
    "q": Act("leave"), "esc": Act("leave"), "f10": Act("leave"),
}  # fmt: skip
#: Everywhere but in an editor's way.
ANYWHERE = {"f5": Act("refresh"), "ctrl l": Act("refresh"), "f12": Act("power"), "f10": Act("leave")}


def update(model: Model, message: Message) -> Step:
    """One message, and the act it leads to. Never raises for anything a person types or a host answers."""
    model, effects = handle(model, message)
    if model.next_act is None:
        return model, effects
    model, more = act(replace(model, next_act=None), model.next_act)
    return model, effects + more


def handle(model: Model, message: Message) -> Step:
    match message:
        case KeyPress(name):
            return pressed(replace(model, last_key=model.now), name)
        case Tick(now, clock):
            return ticked(replace(model, now=now, clock=clock))
        case Answer():
            return answered(model, message)
        case Failed():
            return failed(model, message)
        case Looked():
            return flow_machine.looked(model, message)
        case Detached():
            return flow_vms.detached(model, message)


def act(model: Model, chosen: Act) -> Step:
    return ACTS[chosen.name](model, chosen.arg)


def pressed(model: Model, name: str) -> Step:
    page = model.page
    if name in ANYWHERE and not (page is not None and name == "f12" and _power_is_open(model)):
        return act(_kept(model), ANYWHERE[name])
    if page is None:
        return act(model, HOME[name]) if name in HOME else (model, ())
    page, chosen = page.key(name)
    model = actions.swap(model, page)
    if chosen is None:
        return model, ()
    if isinstance(page, Wait) and page.task is None and chosen.name == "back":
        model = replace(model, proposed=None)
    return act(_kept(model), chosen)


def _kept(model: Model) -> Model:
    return flow_document.keep_draft(model) if isinstance(model.page, Editor) else model


def _power_is_open(model: Model) -> bool:
    return model.page is not None and model.page.title in ("Restart or shut down", "Restart", "Shut down")


def ticked(model: Model) -> Step:
    if model.now - model.last_key > model.idle_s:
        return model, (Quit(model.session.token if model.session else ""),)
    if model.toast and model.now > model.toast_until:
        model = replace(model, toast="")
    model = flow_network.overdue(model)
    model, effects = actions.poll(model)
    if model.now - model.refreshed < REFRESH_S:
        return model, effects
    model, more = look(replace(model, refreshed=model.now))
    return model, effects + more


def look(model: Model) -> Step:
    """Refreshes what the page on the screen shows, and nothing else."""
    page = model.page
    all_effects: tuple[Effect, ...] = ()
    kind = page.kind if page is not None else ""
    wanted: list[Ask] = []
    if page is None or model.silent:
        wanted = [
            Ask(to="host", verb="host.get", signed=False),
            Ask(to="datastores", verb="datastore.list", signed=False),
        ]
        all_effects = (Look(),)
    elif kind == "vms" or kind.startswith("vm:"):
        wanted = [Ask(to="vms", verb="vm.list")]
    elif kind == "tasks":
        wanted = [Ask(to="tasks", verb="task.list")]
    for question in wanted:
        model, more = actions.ask(model, question)
        all_effects += more
    return model, all_effects


def answered(model: Model, answer: Answer) -> Step:
    model = _answered(model, answer.ask.to)
    if answer.ask.to == "host":
        return replace(model, host=answer.value, silent=""), ()
    if answer.ask.to == "datastores":
        return replace(model, datastores=answer.value.datastores), ()
    if answer.ask.to == "started" and isinstance(answer.ask, Ask) and answer.ask.note in ANSWERS:
        return ANSWERS[answer.ask.note](model, answer)
    found = ANSWERS.get(answer.ask.to)
    return found(model, answer) if found else (model, ())


def failed(model: Model, message: Failed) -> Step:
    to, problem = message.ask.to, message.problem
    model = _answered(model, to)
    if to == "host":
        return replace(model, silent=problem.detail), ()
    if to in ("datastores", "") or (to in ("vms", "tasks") and problem.code is not Code.UNAUTHENTICATED):
        return model, ()
    signed = isinstance(message.ask, Ask) and message.ask.signed and to != "session"
    if problem.code is Code.UNAUTHENTICATED and signed and to != "password" and model.session is not None:
        return actions.toast(
            replace(model, session=None, pages=()), "The session has expired: sign in again."
        ), ()
    if to in FAILURES:
        return FAILURES[to](model, message)
    page = model.page
    if to == "task":
        if isinstance(page, Wait):
            model = actions.swap(model, replace(page, note=f"no answer for now: {problem.detail}"))
        return model, ()
    title = page.title if page is not None else "It failed"
    if isinstance(page, Wait):
        return actions.swap(model, actions.problem_page(problem, title)), ()
    return actions.push(model, actions.problem_page(problem, title)), ()


def _answered(model: Model, to: str) -> Model:
    return replace(model, asking=tuple(name for name in model.asking if name != to))
