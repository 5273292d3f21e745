"""One command for every neighbour that is ready: as if it was typed with --host for each of them.

What a neighbour says of itself came over plain HTTP. It is believed only where it speaks from the address
that it names, and not against what a profile believes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import click
import msgspec

from thimble.cli.command import secret
from thimble.cli.session import CliSession
from thimble.cli.tables import safe
from thimble.client import profile as profiles
from thimble.client.address import base_url
from thimble.client.profile import Profile, Profiles
from thimble.client.trust import normal_fingerprint
from thimble.contract import host
from thimble.contract.netboot import Neighbour
from thimble.core.problem import Code, Problem

#: Seconds for signing out again: the command may have sent the host down.
LEAVE_S = 5.0
INTERRUPTED = 130


def run(session: CliSession, neighbours: Sequence[Neighbour], words: Sequence[str]) -> int:
    """The worst exit code. Headings go to standard error where JSON is wanted."""
    from thimble.cli import main

    ready = [one for one in neighbours if one.report is not None]
    for one in neighbours:
        if one.report is None:
            session.note(f"{one.number}: {one.mac} is skipped: it has not reported since its last boot")
    if not ready:
        raise Problem(Code.NOT_FOUND, "no neighbour is ready", hint="`thimble host neighbours` shows them.")
    known, password = profiles.read(session.location), _Password()
    worst = 0
    for one in ready:
        click.echo(safe(heading(one)), err=session.json)
        try:
            chosen = profile_of(one, known, session.token, now=time.time())
            apart = session.apart(chosen)
            entered = "" if chosen.token else _enter(apart, chosen, password)
        except Problem as problem:
            worst = max(worst, main.report(session, problem))
            continue
        code = main.run([*(["--json"] if session.json else []), *words], apart)
        if entered:
            _leave(apart, chosen.url, entered)
        if code == INTERRUPTED:
            return code
        worst = max(worst, code)
    return worst


def heading(one: Neighbour) -> str:
    """`── 1 rack1 https://10.9.0.101/ ──`. Pure."""
    assert one.report is not None
    return f"── {one.number} {one.report.name} {one.report.url} ──"


def profile_of(one: Neighbour, known: Profiles, token: str, *, now: float) -> Profile:
    """How it is reached and believed. Pure. Raises `Problem` when it does not speak for itself."""
    assert one.report is not None
    url = base_url(one.report.url)
    if urlsplit(url).scheme != "https" or urlsplit(url).hostname != one.ip:
        raise Problem(
            Code.UNAUTHENTICATED,
            f"it claims to be at {one.report.url}, but its reports come from {one.ip}",
            hint="The claim is not trusted: sign in to it with `thimble login`.",
        )
    seen = normal_fingerprint(one.report.certificate_sha256)
    kept = known.profiles.get(known.named(url))
    if kept is not None and kept.fingerprint and kept.fingerprint != seen:
        raise Problem(
            Code.UNAUTHENTICATED,
            f"it reports a different certificate than the one you trusted for {url}",
            hint=f"It is new at every boot without a state partition. If its console shows {seen}, "
            f"sign in again with `thimble login {url} --fingerprint` and that.",
        )
    alive = kept is not None and bool(kept.token) and not 0 < kept.expires < now
    return Profile(
        url=url,
        fingerprint="" if kept is not None and kept.ca else seen,
        ca=kept.ca if kept is not None else "",
        user=kept.user if kept is not None and kept.user else "admin",
        token=token or (kept.token if kept is not None and alive else ""),
    )


class _Password:
    """Asked for at most once."""

    def __init__(self) -> None:
        self._known: str | None = None

    def __call__(self) -> str:
        if self._known is None:
            self._known = secret(None, "THIMBLE_PASSWORD", "Password of the neighbours")
        return self._known


def _enter(session: CliSession, chosen: Profile, password: _Password) -> str:
    """Sign in there, for as long as the command takes; the token."""
    with session.connect(chosen) as client:
        asked = host.Login(user=chosen.user, password=password())
        granted: host.Session = client.call("session.create", asked)
    session.remember(msgspec.structs.replace(chosen, token=granted.token))
    return granted.token


def _leave(session: CliSession, url: str, token: str) -> None:
    with suppress(Problem), session.fresh(url, LEAVE_S) as client:
        client.token = token
        client.call("session.delete")
