"""The shape of every command: common options wherever they are typed, and how a mutation is carried out."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import click
import msgspec

from thimble.cli import tables
from thimble.cli.session import CliSession
from thimble.contract.common import DryRun, Task
from thimble.contract.verbs import Started
from thimble.contract.vm import VmList
from thimble.core.problem import TABLE, Code, Problem

if TYPE_CHECKING:
    from thimble.client.http import Client


def _sets(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Sets an option's value in the session, if it was given."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value:
            source = ctx.get_parameter_source(parameter.name or "")
            typed = source is click.core.ParameterSource.COMMANDLINE
            ctx.ensure_object(CliSession).set(name, value, typed=typed)

    return callback


def flag(names: str, field: str, help: str) -> click.Option:
    """A flag that sets `field` of the session."""
    return click.Option(names.split(), is_flag=True, expose_value=False, callback=_sets(field), help=help)


def word(names: str, field: str, metavar: str, help: str, **more: Any) -> click.Option:
    """An option with a value that sets `field` of the session."""
    return click.Option(
        names.split(), expose_value=False, callback=_sets(field), metavar=metavar, help=help, **more
    )


def output_options() -> list[click.Parameter]:
    return [
        flag("--json", "json", "Print JSON."),
        flag("--quiet -q", "quiet", "No progress, no confirmations."),
    ]


def host_options() -> list[click.Parameter]:
    return [
        word("--host", "host", "URL", "The host to connect to."),
        word("--profile", "profile", "NAME", "A saved profile (see `thimble login`)."),
    ]


def trust_options() -> list[click.Parameter]:
    return [
        word("--fingerprint", "fingerprint", "SHA256", "Trust the certificate with this fingerprint.",
             envvar="THIMBLE_FINGERPRINT"),
        word("--ca", "ca", "FILE", "Trust certificates signed by these CAs."),
        flag("--insecure", "insecure", "Trust any certificate. Dangerous."),
    ]  # fmt: skip


def choice(kind: type[StrEnum]) -> click.Choice[str]:
    """One of `kind`, as the API spells it."""
    return click.Choice([one.value for one in kind])


class LocalCommand(click.Command):
    """A command that talks to no host."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options["params"] = [*(options.get("params") or []), *output_options()]
        super().__init__(*args, **options)


class HostCommand(click.Command):
    """A command that reads from a host."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options["params"] = [*(options.get("params") or []), *host_options(), *output_options()]
        super().__init__(*args, **options)


class ChangingCommand(HostCommand):
    """A command that changes something on a host at once."""

    def __init__(self, *args: Any, **options: Any) -> None:
        preview = flag("--dry-run", "dry_run", "Only show what would happen, and what blocks it.")
        options["params"] = [*(options.get("params") or []), preview]
        super().__init__(*args, **options)


class TaskCommand(ChangingCommand):
    """A command that starts a task on a host, and waits for it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        apart = flag("--no-wait", "no_wait", "Print the task's id instead of waiting for it.")
        options["params"] = [*(options.get("params") or []), apart]
        super().__init__(*args, **options)


def act(
    session: CliSession,
    name: str,
    input: msgspec.Struct | None = None,
    *,
    path: Mapping[str, str] | None = None,
    if_match: int | None = None,
    key: str = "",
    goes_down: bool = False,
) -> Any:
    """Carry out a mutation: the verb's value, or its task when that is done. `goes_down`: the host goes
    down for it, so a host that no longer answers is no error; the task is as it was last seen.

    With --dry-run it prints the preview and exits; with --no-wait it prints the task and exits.
    """
    options: dict[str, Any] = {"path": path or {}, "if_match": if_match, "key": key}
    if session.dry_run:
        preview(session, session.client.call(name, input, dry_run=True, **options))
    answer = session.client.call(name, input, **options)
    if not isinstance(answer, Started):
        return answer
    if session.no_wait:
        session.emit(answer, lambda: answer.task.id)
        raise click.exceptions.Exit(0)
    if not goes_down:
        return follow(session, answer.task)
    seen = [answer.task]
    try:
        return follow(session, answer.task, seen=seen.append)
    except Problem as problem:
        if problem.code not in (Code.UNAVAILABLE, Code.TIMEOUT):
            raise
        return seen[-1]


def follow(
    session: CliSession,
    task: Task,
    *,
    timeout: float | None = None,
    client: Client | None = None,
    seen: Callable[[Task], None] = lambda _: None,
) -> Task:
    """Wait for `task` and show its progress. Ctrl-C leaves it running and says how to wait again."""
    from thimble.cli.progress import meter, task_on

    asking = client or session.client
    try:
        with meter(quiet=session.quiet or session.json) as shown:

            def progress(task: Task) -> None:
                seen(task)
                task_on(shown, task)

            return asking.wait(task, timeout=timeout, progress=progress)
    except KeyboardInterrupt:
        stop = f", `thimble task cancel {task.id}` cancels it" if task.cancellable else ""
        session.note(f"The task is still running; `thimble task wait {task.id}` waits for it{stop}.")
        raise


def preview(session: CliSession, dry: DryRun) -> None:
    """Print a dry run and exit, with the exit code of the first blocker if there is one."""

    def text() -> str:
        lines = ["this would happen:", *[f"  {effect.what}" for effect in dry.effects]] if dry.effects else []
        lines += [f"warning: {warning}" for warning in dry.warnings]
        if dry.blockers:
            lines += ["not possible:", *[tables.reason_line(reason) for reason in dry.blockers]]
        return "\n".join(lines or ["nothing to do"])

    session.emit(dry, text)
    raise click.exceptions.Exit(0 if dry.possible or not dry.blockers else TABLE[dry.blockers[0].code][1])


def vm_names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """For the shell's completion: the VMs' names; nothing when the host cannot be asked."""
    with suppress(Exception):
        vms: VmList = ctx.ensure_object(CliSession).client.call("vm.list")
        return [vm.name for vm in vms.vms if vm.name.startswith(incomplete)]
    return []


def width() -> int | None:
    """The terminal's width; None if standard output is not a terminal: then nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def confirm(session: CliSession, question: str, *, yes: bool) -> None:
    """Ask before something is lost; scripts say --yes."""
    if not yes and not session.dry_run and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


def secret(file: str | None, variable: str, prompt: str, *, twice: bool = False) -> str:
    """A password from a file, else the environment, else the person. Raises `Problem` when none is given."""
    import os
    from pathlib import Path

    if file is not None:
        try:
            return sys.stdin.readline().rstrip("\n") if file == "-" else Path(file).read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Problem(Code.INVALID, f"cannot read the password from {file}: {error}") from error
    if found := os.environ.get(variable):
        return found
    if not sys.stdin.isatty():
        raise Problem(Code.INVALID, "no password given", hint=f"Use --password-file, or set {variable}.")
    answer: str = click.prompt(prompt, hide_input=True, err=True, confirmation_prompt=twice)
    return answer
