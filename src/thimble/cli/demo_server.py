"""What `./run` and `./run --rack` share: reading the server's console, signing in, waiting for Ctrl-C."""

from __future__ import annotations

import signal
import sys

from thimble.client.http import Client
from thimble.client.profile import Profile, location, read, write
from thimble.client.trust import Trust
from thimble.contract.host import Login, Session
from thimble.lab.server import LabServer


def sign_in(server: LabServer, fingerprint: str, password: str) -> Client:
    """A client with a session, also kept as the profile `run` for the `thimble` command."""
    url = f"https://127.0.0.1:{server.forward(443)}"
    client = Client(url, trust=Trust(fingerprint=fingerprint))
    session: Session = client.call("session.create", Login(user="admin", password=password))
    client.token = session.token
    kept = Profile(
        url=url, fingerprint=fingerprint, user="admin", token=session.token, expires=session.expires
    )
    write(location(), read(location()).with_profile("run", kept))
    print(f"thimble: {url}/ as admin with password {password}", file=sys.stderr)
    return client


def after(server: LabServer, label: bytes) -> str:
    """The word that follows `label` on the console."""
    server.wait_for(label, 20)
    return server.wait_for(b"\n", 5).split()[-1].decode()


def wait_for_interrupt() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        say("server     powering off")


def say(line: str) -> None:
    print(f"thimble: {line}", file=sys.stderr, flush=True)
