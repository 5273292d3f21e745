"""`thimble plan|apply|export`, `thimble document …`: the host as a document."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import msgspec

from thimble.cli import reconnect, tables
from thimble.cli.command import HostCommand, LocalCommand, TaskCommand, act, confirm, follow
from thimble.cli.management import CONFIRM
from thimble.cli.session import CliSession
from thimble.cli.vm_parse import seconds
from thimble.contract.common import Task
from thimble.contract.document_api import SIZE_MAX, DocumentExport, DocumentPlan, DocumentState, DocumentText
from thimble.contract.management import Management
from thimble.contract.verbs import Started
from thimble.core.problem import TABLE, Code, Problem, Reason
from thimble.core.units import show_seconds


def given(source: str) -> DocumentText:
    """The document in a file, at a URL, or on standard input (`-`). Raises `Problem`."""
    try:
        if source == "-":
            return DocumentText(text=sys.stdin.buffer.read(SIZE_MAX + 1).decode(), source="standard input")
        if source.startswith(("http://", "https://")):
            return DocumentText(text=_fetched(source), source=source)
        path = Path(source)
        if path.stat().st_size > SIZE_MAX:
            raise Problem(
                Code.TOO_LARGE, f"{source} is larger than the {SIZE_MAX >> 10} KiB a document may have"
            )
        return DocumentText(text=path.read_bytes().decode(), source=path.name)
    except UnicodeDecodeError as error:
        raise Problem(Code.MALFORMED, f"{source} is not UTF-8 text", hint="Save it as UTF-8.") from error
    except OSError as error:
        raise Problem(Code.NOT_FOUND, f"cannot read {source}: {error.strerror or error}") from error


def _fetched(url: str) -> str:
    import httpx

    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=30.0) as answer:
            answer.raise_for_status()
            data = b""
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > SIZE_MAX:
                    raise Problem(Code.TOO_LARGE, f"{url} is larger than a document may be")
            return data.decode()
    except httpx.HTTPError as error:
        raise Problem(Code.UNAVAILABLE, f"cannot fetch {url}: {error}") from error


def pointed(problem: Problem, document: DocumentText) -> Problem:
    """Every mistake with its line of the text. Pure."""
    return Problem(
        problem.code,
        problem.detail,
        hint=problem.hint,
        reasons=tuple(_pointed(reason, document) for reason in problem.reasons),
        where=problem.where,
    )


def _pointed(reason: Reason, document: DocumentText) -> Reason:
    if not reason.line:
        return reason
    lines = document.text.replace("\r\n", "\n").split("\n")
    line = lines[reason.line - 1] if reason.line <= len(lines) else ""
    number = f"{reason.line:>5} | "
    shown = line[:160].replace("\t", " ")
    mark = "\n" + " " * (len(number) + 2 + min(reason.column - 1, 160)) + "^" if shown.strip() else ""
    text = f"{document.source}:{reason.line}:{reason.column}: {reason.message}\n  {number}{shown}{mark}"
    return Reason(message=text, code=reason.code)


def plan_text(found: DocumentPlan, document: DocumentText) -> str:
    """What would happen, the blockers, and what the document does not mention. Pure."""
    lines = [f"  {effect.what}" for effect in found.effects]
    lines = ["this would happen:", *lines] if lines else ["nothing to do: the host is as the document says"]
    lines += [f"warning: {warning}" for warning in found.warnings]
    if found.drift:
        lines += ["left alone:", *(f"  {line}" for line in found.drift)]
    if found.blockers:
        lines += ["not possible:", *(tables.reason_line(_pointed(one, document)) for one in found.blockers)]
    return "\n".join(lines)


def _planned(session: CliSession, document: DocumentText) -> DocumentPlan:
    try:
        found: DocumentPlan = session.client.call("document.plan", document)
    except Problem as problem:
        raise (problem if session.json else pointed(problem, document)) from None
    return found


@click.command(cls=HostCommand)
@click.argument("document", metavar="FILE|URL|-")
@click.pass_obj
def plan(session: CliSession, document: str) -> None:
    """Show what applying a host document would do. Changes nothing."""
    text = given(document)
    found = _planned(session, text)
    session.emit(found, lambda: plan_text(found, text))
    if found.blockers:
        raise click.exceptions.Exit(TABLE[found.blockers[0].code][1])


@click.command(cls=TaskCommand)
@click.argument("document", metavar="FILE|URL|-")
@click.option("--confirm-within", default=CONFIRM, metavar="TIME", help=f"For [management].  [{CONFIRM}]")
@click.option("--keep", is_flag=True, help="Keep [management] at once, without confirming.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def apply(session: CliSession, *, document: str, confirm_within: str, keep: bool, yes: bool) -> None:
    """Apply a host document. Nothing is deleted; applying it again changes nothing.

    Commit-confirm: a change of the management network is undone unless this command can reach the host again.
    """
    within = 0 if keep else round(seconds(confirm_within))
    text = msgspec.structs.replace(given(document), confirm_within=within)
    found = _planned(session, text)
    if session.dry_run or found.blockers:
        session.emit(found, lambda: plan_text(found, text))
        raise click.exceptions.Exit(TABLE[found.blockers[0].code][1] if found.blockers else 0)
    if found.effects and not yes and document != "-" and sys.stdin.isatty():
        session.note(plan_text(found, text))
        confirm(session, "Do that?", yes=yes)
    try:
        task = _applied(session, text, found)
    except Problem as problem:
        raise (problem if session.json else pointed(problem, text)) from None
    session.done(task, lambda: task.result.get("done", "") or task.result.get("note", ""))


def _applied(session: CliSession, text: DocumentText, found: DocumentPlan) -> Task:
    """The task when it is done; the host's own addresses change last, and are then confirmed."""
    cuts = any("management.change" in effect.verbs for effect in found.effects)
    if not cuts or not text.confirm_within or session.no_wait:
        task: Task = act(session, "document.apply", text)
        return task
    started: Started = session.client.call("document.apply", text)
    with reconnect.brief(session) as client:
        task = reconnect.through(lambda: follow(session, started.task, client=client)) or started.task
        now: Management | None = reconnect.through(lambda: client.call("management.get"))
    if now is None or now.pending is not None:
        reconnect.confirm(session, _addresses(text), text.confirm_within)
    return follow(session, task)


def _addresses(document: DocumentText) -> tuple[str, ...]:
    """The static ones it gives the host; it was read before."""
    import tomllib

    net = tomllib.loads(document.text.removeprefix("\ufeff")).get("management", {})
    return tuple(str(net[name]) for name in ("address", "address6") if name in net)


@click.command(cls=HostCommand)
@click.option("--output", "-o", type=click.Path(dir_okay=False), metavar="FILE", help="Write to this file.")
@click.pass_obj
def export(session: CliSession, output: str | None) -> None:
    """Write the host's present configuration as a document, as a backup or a template."""
    found: DocumentExport = session.client.call("document.export")
    if output is None:
        session.emit(found, lambda: found.text.rstrip("\n"))
        return
    path = Path(output)
    try:
        path.touch(mode=0o600)  # it holds hashes of passwords
        path.write_text(found.text)
    except OSError as error:
        raise Problem(Code.FAILED, f"cannot write {output}: {error.strerror}") from error
    session.say(f"wrote {output}")


@click.group(help="The host document: its schema, and the one applied last.")
def document() -> None:
    """The group."""


@document.command("schema", cls=LocalCommand)
def schema() -> None:
    """Print the JSON Schema, for completion in TOML editors."""
    from thimble.document import schema as published

    click.echo(published.schema().decode(), nl=False)


def state_text(state: DocumentState, *, now: float) -> str:
    """Pure."""
    if not state.sha256:
        return "no document has been applied to this host" + (f"; {state.problem}" if state.problem else "")
    ago = show_seconds(max(0.0, now - state.applied))
    return tables.facts(
        [
            ("document", state.source or "(sent by a client)"),
            ("SHA-256", state.sha256),
            ("applied", f"{ago} ago" + ("" if state.complete else ", incompletely: apply it again")),
            ("problem", state.problem),
            ("changed since", "\n".join(state.changes)),
            ("not mentioned", "\n".join(state.drift)),
        ]
    )


@document.command("show", cls=HostCommand)
@click.pass_obj
def show_(session: CliSession) -> None:
    """The last document applied, and the drift of the host since then."""
    found: DocumentState = session.client.call("document.get")
    session.emit(found, lambda: state_text(found, now=time.time()))
