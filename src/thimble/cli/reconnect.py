"""Confirms new management network settings: connects to the host anew at its new address, and confirms there.

Never uses a connection that was there before; the host would not believe it either.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from thimble.cli.session import CliSession
from thimble.client.http import Client
from thimble.contract.management import Management
from thimble.core.problem import Code, Problem

T = TypeVar("T")
#: Seconds for one attempt to connect, for an answer by a connection that may go, between two rounds.
TRY_S = 3.0
BRIEF_S = 10.0
PAUSE_S = 0.5


def candidates(url: str, *addresses: str) -> tuple[str, ...]:
    """Where the host may answer: at the static ones of `addresses`, and where it did. Pure."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    found = []
    for address in addresses:
        alone = address.partition("/")[0]
        if "/" in address and alone not in (parts.hostname, ""):
            host = f"[{alone}]" if ":" in alone else alone
            found.append(f"{parts.scheme}://{host}{port}")
    return (*found, url)


def confirm(session: CliSession, addresses: tuple[str, ...], seconds: float) -> Management:
    """Confirm the new settings, or say when the host undoes them.

    Raises `Problem` UNAVAILABLE when the host was not reached, CONFLICT when they are undone already.
    """
    name, profile = session.chosen()
    deadline = time.monotonic() + seconds
    at = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
    urls = candidates(profile.url, *addresses)
    session.note(f"the new settings are on trial until {at:%H:%M:%S}: connecting to {' and '.join(urls)}")
    url, kept = _reached(session, urls, deadline, f"{at:%H:%M:%S}")
    if name and url != profile.url:
        session.remember(msgspec.structs.replace(profile, url=url), name=name)
        session.note(f"this host is at {url} from now on")
    session.host = session.host and url
    session.renew()
    return kept


def _reached(session: CliSession, urls: tuple[str, ...], deadline: float, at: str) -> tuple[str, Management]:
    last = ""
    while time.monotonic() < deadline:
        for url in urls:
            try:
                with session.fresh(url, TRY_S) as client:
                    return url, _confirmed(client)
            except Problem as problem:
                if problem.code is Code.GONE:
                    raise Problem(Code.CONFLICT, problem.detail, hint=problem.hint) from None
                last = problem.detail
        time.sleep(PAUSE_S)
    raise Problem(
        Code.UNAVAILABLE,
        f"cannot reach the host with its new settings: {last}",
        hint=f"They are undone automatically at {at}; then the host answers at its old address.",
    )


def _confirmed(client: Client) -> Management:
    found: Management = client.call("management.get")
    if found.pending is None:
        raise Problem(Code.GONE, "the new settings are no longer on trial", hint=_LOOK)
    if not found.pending.in_force:
        why = found.pending.problem or "the old address still answers, the new one does not"
        raise Problem(Code.CONFLICT, why)
    kept: Management = client.call("management.confirm")
    return kept


_LOOK = "`thimble host network` shows the present settings."


def brief(session: CliSession) -> Client:
    """A client for what may cut its own connection off: it does not wait long for an answer."""
    return session.fresh(session.client.url, BRIEF_S)


def through(work: Callable[[], T]) -> T | None:
    """What `work` answers; None if the connection went with the old address."""
    try:
        return work()
    except Problem as problem:
        if problem.code not in (Code.UNAVAILABLE, Code.TIMEOUT):
            raise
        return None
