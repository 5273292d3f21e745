"""`thimble user …` and `thimble token …`: who and what may sign in."""

from __future__ import annotations

import secrets
import time

import click
from msgspec import UNSET

from thimble.cli.command import (
    ChangingCommand,
    LocalCommand,
    act,
    choice,
    secret,
)
from thimble.cli.session import CliSession
from thimble.cli.standard import add_delete, add_list
from thimble.cli.tables import Column, table
from thimble.cli.vm_parse import seconds
from thimble.contract import host
from thimble.contract.host import Role, TokenCreate, TokenList, User, UserChange, UserCreate, UserList
from thimble.core.problem import Code, Problem
from thimble.core.units import show_seconds

TOKENS = (
    Column("id", least=12),
    Column("name", least=10),
    Column("user", least=8),
    Column("role"),
    Column("expires", right=True),
)
VARIABLE = "THIMBLE_NEW_PASSWORD"


@click.group(help="Users who may sign in.")
def user() -> None:
    """The group."""


@click.group(help="API tokens for programs.")
def token() -> None:
    """The group."""


def users_table(users: UserList, *, width: int | None) -> str:
    """Pure."""
    columns = (Column("name", least=12), Column("role"))
    return table(columns, [(one.name, str(one.role)) for one in users.users], width=width)


def tokens_table(tokens: TokenList, *, width: int | None) -> str:
    now = time.time()
    rows = [(one.id, one.name, one.user, str(one.role), _left(one.expires - now)) for one in tokens.tokens]
    return table(TOKENS, rows, width=width) if rows else "no tokens"


def _left(seconds: float) -> str:
    return f"in {show_seconds(seconds)}" if seconds > 0 else "expired"


add_list(user, "user.list", "List users.", users_table)


@user.command("create", cls=ChangingCommand)
@click.argument("name")
@click.option("--role", type=choice(Role), default=Role.VIEWER.value, help="[viewer]")
@click.option("--password-file", metavar="FILE", help=f"Else {VARIABLE}, or a prompt.")
@click.pass_obj
def user_create(session: CliSession, name: str, role: str, password_file: str | None) -> None:
    """Create a user."""
    password = secret(password_file, VARIABLE, f"Password for {name}", twice=True)
    wanted = UserCreate(name=name, password=password, role=Role(role))
    made: User = act(session, "user.create", wanted, key=secrets.token_hex(16))
    session.done(made, lambda: f"created {made.name} ({made.role})")


@user.command("change", cls=ChangingCommand)
@click.argument("name")
@click.option("--role", type=choice(Role))
@click.option("--password", is_flag=True, help="Ask for a new password.")
@click.option("--password-file", metavar="FILE", help=f"Take the new one from here (or {VARIABLE}).")
@click.pass_obj
def user_change(
    session: CliSession, *, name: str, role: str | None, password: bool, password_file: str | None
) -> None:
    """Change a user's role or password."""
    renewed = password or password_file is not None
    if not renewed and role is None:
        raise Problem(Code.INVALID, "nothing to change", hint="Use --role, --password or --password-file.")
    wanted = UserChange(
        role=Role(role) if role else UNSET,
        password=secret(password_file, VARIABLE, f"New password for {name}", twice=True)
        if renewed
        else UNSET,
    )
    made: User = act(session, "user.change", wanted, path={"user": name})
    session.done(made, lambda: f"changed {made.name} ({made.role})")


@user.command("hash", cls=LocalCommand)
@click.option("--password-file", metavar="FILE", help=f"Else {VARIABLE}, or a prompt.")
def user_hash(password_file: str | None) -> None:
    """Print the hash of a password, for `password_hash` in a host document."""
    from thimble.access.passwords import hashed

    password = secret(password_file, VARIABLE, "Password", twice=True)
    if not 8 <= len(password) <= 1024:
        raise Problem(Code.INVALID, "a password has 8 to 1024 characters")
    click.echo(hashed(password, secrets.token_bytes(16)))


add_delete(user, "user", "Delete a user.")


add_list(token, "token.list", "List tokens.", tokens_table)


@token.command("create", cls=ChangingCommand)
@click.argument("name")
@click.option("--role", type=choice(Role), default=Role.VIEWER.value, help="[viewer]")
@click.option("--expires", default="1y", metavar="TIME", help="From now, such as 12h, 30d or 1y.  [1y]")
@click.pass_obj
def token_create(session: CliSession, name: str, role: str, expires: str) -> None:
    """Create a token for a program. It is shown once, alone on standard output."""
    wanted = TokenCreate(name=name, role=Role(role), expires_s=seconds(expires))
    made: host.Session = act(session, "token.create", wanted)
    session.emit(made, lambda: made.token)


@token.command("delete", cls=ChangingCommand)
@click.argument("id")
@click.pass_obj
def token_delete(session: CliSession, id: str) -> None:
    """Revoke a token."""
    act(session, "token.delete", path={"token": id})
    session.say(f"revoked {id}")
