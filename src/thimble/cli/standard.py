"""The commands that most nouns have alike: `list` and `delete`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from thimble.cli.command import ChangingCommand, HostCommand, act, confirm, width
from thimble.cli.session import CliSession


def add_list(group: click.Group, verb: str, help: str, draw: Callable[..., str]) -> None:
    """Add `list`: what `verb` answers, as JSON or as `draw(answer, width=…)`."""

    @group.command("list", cls=HostCommand, help=help)
    @click.pass_obj
    def list_(session: CliSession) -> None:
        found: Any = session.client.call(verb)
        session.emit(found, lambda: draw(found, width=width()))


def add_delete(group: click.Group, noun: str, help: str) -> None:
    """Add `delete NAME`: asks first, then calls `NOUN.delete`."""

    @group.command("delete", cls=ChangingCommand, help=help)
    @click.argument("name")
    @click.option("--yes", "-y", is_flag=True, help="Do not ask.")
    @click.pass_obj
    def delete(session: CliSession, *, name: str, yes: bool) -> None:
        confirm(session, f"Delete the {noun} {name}?", yes=yes)
        act(session, f"{noun}.delete", path={noun: name})
        session.say(f"deleted {name}")
