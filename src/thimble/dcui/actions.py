"""What all flows use: pages on the stack, API requests, previews, progress, problems. Pure."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from thimble.contract.common import DryRun, Task, TaskState
from thimble.contract.verbs import Started
from thimble.core.problem import Problem, Reason
from thimble.dcui.model import TOAST_S, Answer, Ask, Effect, Model, Step
from thimble.dcui.pages import Act, Page, Proposal, Text, Wait


def push(model: Model, page: Page) -> Model:
    return replace(model, pages=(*model.pages, page))


def pop(model: Model) -> Model:
    """Without the page on top; the page below is refreshed."""
    return replace(model, pages=model.pages[:-1], refreshed=-1e9)


def swap(model: Model, page: Page) -> Model:
    """Replaces the page on top."""
    return push(replace(model, pages=model.pages[:-1]), page)


def change(model: Model, kind: str, page: Page) -> Model:
    """Replaces the page of this kind, wherever it is."""
    return replace(model, pages=tuple(page if old.kind == kind else old for old in model.pages))


def toast(model: Model, text: str) -> Model:
    """A message at the bottom, for `TOAST_S`."""
    return replace(model, toast=text, toast_until=model.now + TOAST_S)


def ask(model: Model, question: Ask, *more: Effect) -> Step:
    """Send it as the user signed in (or as the console), unless the same request is under way."""
    if question.to in model.asking:
        return model, more
    token = model.session.token if question.signed and model.session else ""
    asked = replace(question, token=token)
    return replace(model, asking=(*model.asking, question.to)), (asked, *more)


def propose(model: Model, title: str, question: Ask) -> Step:
    """First a dry run; the user then decides."""
    model = push(
        replace(model, proposed=question),
        Wait(title=title, note="checking what this would do", since=model.now),
    )
    return ask(model, replace(question, to="proposed", dry_run=True))


def proposed(model: Model, answer: Answer) -> Step:
    dry: DryRun = answer.value
    page = model.page
    if not isinstance(page, Wait):
        return model, ()
    blockers = tuple(line for reason in dry.blockers for line in (in_words(reason),))
    return swap(
        model,
        Proposal(
            title=page.title,
            effects=tuple(effect.what for effect in dry.effects),
            warnings=dry.warnings,
            blockers=blockers or (() if dry.possible else ("it is not possible now",)),
            act=Act("proposal.do") if dry.possible and not blockers else None,
        ),
    ), ()


def do_proposed(model: Model, _arg: str) -> Step:
    """The user confirmed."""
    if model.proposed is None or model.page is None:
        return model, ()
    question, title = model.proposed, model.page.title
    return run(pop(replace(model, proposed=None)), title, question)


def run(model: Model, title: str, question: Ask, then: Act | None = None) -> Step:
    """Run it, with its progress on the screen; `then` follows when it is done."""
    model = push(model, Wait(title=title, since=model.now, then=then))
    return ask(model, replace(question, to="started", note=question.to))


def started(model: Model, answer: Answer) -> Step:
    """The request started a task, or is done already."""
    value: Any = answer.value
    page = model.page
    if isinstance(value, Started):
        if isinstance(page, Wait):
            return tasked(swap(model, replace(page, task=value.task)), value.task)
        return model, ()
    if isinstance(page, Wait):
        model = toast(pop(model), f"{page.title}: done")
    return model, ()


def polled(model: Model, answer: Answer) -> Step:
    """The progress of the task on the screen."""
    page, task = model.page, answer.value
    if not isinstance(page, Wait) or page.task is None or page.task.id != task.id:
        return model, ()
    return tasked(swap(model, replace(page, task=task, note="")), task)


def tasked(model: Model, task: Task) -> Step:
    page = model.page
    if task.state is TaskState.RUNNING or page is None:
        return model, ()
    if task.problem is not None:
        return swap(model, problem_page(task.problem.problem(), page.title)), ()
    model = toast(pop(model), f"{page.title}: {task.state}")
    if isinstance(page, Wait) and page.then is not None:
        model = replace(model, next_act=page.then)
    return model, ()


def poll(model: Model) -> Step:
    """Poll while a task is on the screen."""
    page = model.page
    if isinstance(page, Wait) and page.task is not None and page.task.state is TaskState.RUNNING:
        return ask(model, Ask(to="task", verb="task.get", path={"task": page.task.id}, query={"wait_s": "1"}))
    return model, ()


def problem_page(problem: Problem, title: str) -> Text:
    """The error, all its reasons, and the hint."""
    return Text(title=title, lines=problem_lines(problem), alarm=True)


def problem_lines(problem: Problem) -> tuple[str, ...]:
    reasons = [in_words(reason) for reason in problem.reasons]
    lines = [problem.detail, *(f"- {line}" for line in reasons if line != problem.detail)]
    return (*lines, "", problem.hint) if problem.hint else tuple(lines)


def in_words(reason: Reason) -> str:
    """A reason with its place: line and column, else the field."""
    if reason.line:
        return f"line {reason.line}, column {reason.column}: {reason.message}"
    path = reason.path.removeprefix("$.")
    return f"{path}: {reason.message}" if path and path not in reason.message else reason.message


def moment(seconds: float) -> str:
    """A time of day as hh:mm:ss UTC; `seconds` are Unix seconds."""
    day = int(seconds) % 86400
    return f"{day // 3600:02}:{day // 60 % 60:02}:{day % 60:02}"
