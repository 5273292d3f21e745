"""`thimble task …`: long-running work on the host."""

from __future__ import annotations

import time

import click

from thimble.cli.command import ChangingCommand, HostCommand, act, follow, width
from thimble.cli.session import CliSession
from thimble.cli.tables import Column, facts, problem_text, table
from thimble.cli.vm_parse import seconds
from thimble.contract.common import Task
from thimble.contract.host import TaskList
from thimble.core.units import show_seconds

COLUMNS = (
    Column("id", least=13),
    Column("what", least=10),
    Column("on", least=11),
    Column("state"),
    Column("done", right=True),
    Column("took", right=True),
    Column("by", least=5),
    Column("note", least=6),
)


@click.group(help="Tasks: long-running work and its results.")
def task() -> None:
    """The group."""


def listing(tasks: TaskList, *, now: float, width: int | None) -> str:
    """One row each, newest first. Pure."""
    rows = [
        (
            one.id, one.verb, one.subject, str(one.state), f"{one.progress:.0%}",
            show_seconds(max(0.0, (one.ended or now) - one.created)), one.owner,
            one.problem.detail if one.problem else one.step,
        )
        for one in tasks.tasks
    ]  # fmt: skip
    return table(COLUMNS, rows, width=width) if rows else "no tasks since the agent started"


def details(one: Task, *, now: float) -> str:
    """Everything about one task. Pure."""
    took = show_seconds(max(0.0, (one.ended or now) - one.created))
    return facts(
        [
            ("id", one.id),
            ("what", one.verb),
            ("on", one.subject),
            ("state", f"{one.state}, {one.progress:.0%}" + (", can be cancelled" if one.cancellable else "")),
            ("step", one.step),
            ("by", one.owner),
            ("took", took),
            ("result", "\n".join(f"{key}: {value}" for key, value in one.result.items())),
            ("problem", problem_text(one.problem.problem()) if one.problem else ""),
        ]
    )


@task.command("list", cls=HostCommand)
@click.pass_obj
def list_(session: CliSession) -> None:
    """List tasks, newest first."""
    tasks: TaskList = session.client.call("task.list")
    session.emit(tasks, lambda: listing(tasks, now=time.time(), width=width()))


@task.command("show", cls=HostCommand)
@click.argument("id")
@click.pass_obj
def show_(session: CliSession, id: str) -> None:
    """Everything about one task."""
    found: Task = session.client.call("task.get", path={"task": id})
    session.emit(found, lambda: details(found, now=time.time()))


@task.command("cancel", cls=ChangingCommand)
@click.argument("id")
@click.pass_obj
def cancel(session: CliSession, id: str) -> None:
    """Cancel a task, if possible."""
    found: Task = act(session, "task.cancel", path={"task": id})
    session.emit(found, lambda: f"{found.verb}: {found.state}")


@task.command("wait", cls=HostCommand)
@click.argument("id")
@click.option("--timeout", metavar="TIME", help="Wait at most this long.")
@click.pass_obj
def wait(session: CliSession, id: str, timeout: str | None) -> None:
    """Wait for a task; fails if the task failed."""
    found: Task = session.client.call("task.get", path={"task": id})
    found = follow(session, found, timeout=None if timeout is None else seconds(timeout))
    session.emit(found, lambda: f"{found.verb}: {found.state}")
