"""`thimble login` and `thimble logout`. The password goes to the host and nowhere else."""

from __future__ import annotations

import click
import msgspec

from thimble.cli.command import HostCommand, LocalCommand, secret, trust_options
from thimble.cli.session import CliSession
from thimble.contract import host
from thimble.core.problem import Code, Problem


@click.command(cls=LocalCommand, params=trust_options())
@click.argument("url", required=False)
@click.option("--user", default="", metavar="NAME", help="User name.  [admin]")
@click.option(
    "--password-file", metavar="FILE", help="Read the password from this file; - is standard input."
)
@click.option(
    "--name", default="", metavar="PROFILE", help="Save the profile under this name.  [the host's address]"
)
@click.pass_obj
def login(session: CliSession, url: str | None, user: str, password_file: str | None, name: str) -> None:
    """Sign in to the host at URL and make it the current one.

    The password comes from --password-file, THIMBLE_PASSWORD, or a prompt. The host's certificate is
    shown to you at the first sign-in; with --fingerprint it is checked without asking.
    """
    if url:
        session.set("host", url, typed=True)
    _, profile = session.chosen()
    user = user or profile.user or "admin"
    profile = msgspec.structs.replace(profile, user=user, token="", expires=0.0)
    with session.connect(profile) as client:
        password = secret(password_file, "THIMBLE_PASSWORD", f"Password of {user} at {profile.url}")
        granted: host.Session = client.call("session.create", host.Login(user=user, password=password))
    if not profile.trust.decided:  # the question at the first visit was answered just now
        _, profile = session.chosen()
    kept = msgspec.structs.replace(profile, user=granted.user, token=granted.token, expires=granted.expires)
    name = session.remember(kept, name=name)
    if session.json:
        session.emit(msgspec.structs.replace(granted, token=""), str)
    session.say(f"signed in to {kept.url} as {granted.user} ({granted.role}), saved as profile {name}")


@click.command(cls=HostCommand)
@click.pass_obj
def logout(session: CliSession) -> None:
    """Sign out: revokes the token; the profile stays."""
    name, profile = session.chosen()
    if not profile.token:
        raise Problem(Code.CONFLICT, f"you are not signed in to {profile.url}")
    try:
        session.client.call("session.delete")
    except Problem as problem:
        if problem.code is not Code.UNAUTHENTICATED:  # an expired token is gone already
            raise
    session.remember(msgspec.structs.replace(profile, token="", expires=0.0), name=name)
    session.say(f"signed out of {profile.url}")
