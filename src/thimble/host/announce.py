"""Says that the host is ready, and where: on the terminal, by PID 1 on every console, to the console UI."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from thimble.host import hardware
from thimble.host.pid1 import Init
from thimble.sys import files


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """`host`: the address the API listens on, empty for all; `password`: the first one of `admin`, if it was
    just made; `seconds`: from the start to ready.
    """

    host: str
    port: int
    fingerprint: str
    password: str
    seconds: float
    warnings: tuple[str, ...]


def announce(init: Init, ready: Ready) -> None:
    """Hosted, the terminal is ours; in the image PID 1 adds the addresses and writes to every console.

    Raises `Problem` UNAVAILABLE when PID 1 does not listen.
    """
    lines = [f"certificate SHA-256 {ready.fingerprint}", *(f"warning: {line}" for line in ready.warnings)]
    login = f"login admin, password {ready.password}" if ready.password else ""
    if init.present:
        init.tell("ready", lines=lines, login=login)
        return
    lines[1:1] = [login] if login else []
    where = ready.host or next(iter(hardware.addresses()), "127.0.0.1")
    suffix = "" if ready.port == 443 else f":{ready.port}"
    print(f"thimble: ready in {ready.seconds:.1f} s", file=sys.stderr)
    for line in (f"https://{_bracketed(where)}{suffix}/", *lines):
        print(f"thimble: {line}", file=sys.stderr, flush=True)


def admit_console(run: Path, *, host: str, port: int, fingerprint: str, token: str) -> None:
    """`console.json`: how the console UI, which is root here, may look before anybody signs in."""
    url = f"https://{_bracketed(host or '127.0.0.1')}:{port}"
    here = {"url": url, "fingerprint": fingerprint, "token": token}
    files.write_atomic(run / "console.json", msgspec.json.encode(here), mode=0o600, durable=False)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
