"""The agent's side of PID 1: the facts it left, and the socket that takes our words.

    /run/thimble/boot.json    what PID 1 found: state, uplink, warnings, the kernel's start
    /run/thimble/init.sock    datagrams to it: ready, say, reboot, poweroff

Hosted, neither exists: facts are empty, words go to stderr, and power is not ours.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec

from thimble.core.problem import Code, Problem


class Init:
    """PID 1, as seen from the agent."""

    def __init__(self, run: Path) -> None:
        self._socket = run / "init.sock"
        self._path = run / "boot.json"
        self._stamp = (0, 0)
        self._known: dict[str, Any] = {}

    @property
    def _facts(self) -> dict[str, Any]:
        """As PID 1 last wrote them."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return {}
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp != self._stamp:
            self._known, self._stamp = msgspec.json.decode(self._path.read_bytes()), stamp
        return self._known

    @property
    def present(self) -> bool:
        """False when we run hosted, inside somebody's OS."""
        return self._socket.exists()

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(str(line) for line in self._facts.get("warnings", ()))

    @property
    def state(self) -> tuple[str, str]:
        """(`partition` or `ram`, device or the reason); ("", "") when PID 1 left no facts."""
        facts = self._facts.get("state") or {}
        return str(facts.get("kind", "")), str(facts.get("device") or facts.get("reason") or "")

    @property
    def document(self) -> dict[str, str] | None:
        """The host document found at boot, as `document.boot.Found` has it; None when there is none."""
        found = self._facts.get("document")
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else None

    @property
    def searched(self) -> bool:
        """Has PID 1 looked everywhere for a document, and for what it was booted from?"""
        return bool(self._facts.get("searched"))

    def tell(self, verb: str, **more: object) -> None:
        """Send one datagram. Raises `Problem` UNSUPPORTED when hosted, UNAVAILABLE when nobody listens."""
        if not self.present:
            raise Problem(
                Code.UNSUPPORTED,
                "this agent runs inside another operating system",
                hint="Reboot or power off that system itself; its VMs are stopped by `thimble vm stop`.",
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            try:
                line.sendto(msgspec.json.encode({"verb": verb, **more}), str(self._socket))
            except OSError as error:
                raise Problem(Code.UNAVAILABLE, f"PID 1 does not take {verb!r}: {error.strerror}") from error
