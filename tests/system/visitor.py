"""Somebody who has the server's console and its address: signs in, types commands, starts the tiny guest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from thimble.cli.demo import after
from thimble.client.http import Client
from thimble.client.trust import Trust
from thimble.contract.host import Login, Session
from thimble.contract.vm import DirectBoot, Firmware, VmCreate
from thimble.core.problem import Code, Problem
from thimble.guest import tiny
from thimble.image.progress import on_stderr
from thimble.lab.server import LabServer

BOOT_S = 240.0
GUEST_S = 120.0
T = TypeVar("T")


#: What a host answers that is not there yet, or busy.
NOT_YET = (Code.UNAVAILABLE, Code.TIMEOUT, Code.CONFLICT)


def until(
    what: str, ask: Callable[[], T], timeout: float = 120.0, pace: float = 0.5, also: tuple[Code, ...] = ()
) -> T:
    """What `ask` answers once that is true; a host that is not there yet is asked again.

    `also`: further answers that mean the same.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            if answer := ask():
                return answer
        except Problem as problem:
            if problem.code not in (*NOT_YET, *also):
                raise
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(pace)


class Commands:
    """The real command line in a process of its own, signed in as `client` is, with no profile."""

    def __init__(self, client: Client, fingerprint: str, scratch: Path) -> None:
        self.client = client
        self._fingerprint = fingerprint
        self._scratch = scratch

    def __call__(self, *words: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "thimble.cli.main", *words],
            env={
                **os.environ,
                "XDG_CONFIG_HOME": str(self._scratch),
                "THIMBLE_HOST": self.client.url,
                "THIMBLE_FINGERPRINT": self._fingerprint,
                "THIMBLE_TOKEN": self.client.token,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def ok(self, *words: str, timeout: float = 400) -> str:
        """Its standard output; it must not fail."""
        told = self(*words, timeout=timeout)
        assert told.returncode == 0, f"thimble {' '.join(words)}: {told.stderr}"
        return told.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.ok(*words, "--json"))


def visit(server: LabServer) -> Client:
    """Wait until the server is ready and sign in with what it shows."""
    server.wait_for(b"thimble: ready in ", BOOT_S)
    fingerprint = after(server, b"certificate SHA-256 ")
    password = after(server, b"login admin, password ")
    client = Client(f"https://127.0.0.1:{server.forward(443)}", trust=Trust(fingerprint=fingerprint))
    client.token = signed_in(client, password)
    return client


def signed_in(client: Client, password: str, also: tuple[Code, ...] = ()) -> str:
    """A token. The console shows the certificate before the address answers."""
    login = Login(user="admin", password=password)
    session: Session = until("sign-in", lambda: client.call("session.create", login), 120, 0.3, also)
    return session.token


def start_guest(client: Client) -> None:
    """Start a VM that needs no disk, and wait for its first word."""
    guest = tiny.ensure(on_stderr)
    for name, file in (("vmlinuz", guest.kernel), ("initrd", guest.initrd)):
        with file.open("rb") as content:
            client.upload("image.upload", content, file.stat().st_size, path={"image": name})
    wanted = VmCreate(
        name="tiny", memory_mib=192, firmware=Firmware.DIRECT, vga=False, tablet=False, start=True,
        direct=DirectBoot(kernel="vmlinuz", initrd="initrd", cmdline=guest.cmdline),
    )  # fmt: skip
    client.finish(client.call("vm.create", wanted), timeout=GUEST_S)
    seen, deadline = b"", time.monotonic() + GUEST_S
    with client.console("tiny") as line:
        while b"tiny guest: up" not in seen:
            left = deadline - time.monotonic()
            assert left > 0, f"the guest did not come up: {seen[-400:]!r}"
            piece = line.recv(timeout=left)
            seen += piece if isinstance(piece, bytes) else piece.encode()
    assert client.call("vm.get", path={"vm": "tiny"}).status.accel == "kvm"
