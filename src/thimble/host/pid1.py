"""The agent's side of PID 1: the facts it left, and the socket that takes our messages.

    /run/thimble/boot.json    what PID 1 found: state, uplink, warnings, the kernel's start, medium, document
    /run/thimble/init.sock    datagrams to it: ready, say, reboot, poweroff, kexec, network, confirmed

PID 1 writes its facts anew as it learns more (CD drives and firmware are asked after readiness), so they are
read whenever somebody wants to know. Hosted, neither exists: facts are empty, words go to stderr, and power
is not ours.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec

from thimble.core.problem import Code, Problem, Reason

#: Why power and network are not ours, and what to do.
HOSTED = Reason(message="this agent runs inside another operating system", code=Code.UNSUPPORTED)
HOSTED_HINT = "Reboot or power off that system itself; its VMs are stopped by `thimble vm stop`."


class Medium(msgspec.Struct, frozen=True, kw_only=True):
    """What the host was booted from: `kind` disk or cd; `esp` has the loaders, "" on a CD."""

    disk: str
    esp: str
    kind: str


class BootFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`slot` is a, b, or "" when this boot was not from a slot; `medium` is None for a boot by network."""

    firmware: str = ""
    secure_boot: bool = False
    slot: str = ""
    trial: bool = False
    build: str = ""
    medium: Medium | None = None


class DocumentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the host document is: a copy at `path` that came from `source`, or a `url` to fetch it from.

    `problem`: there is one, and it could not be had.
    """

    path: str = ""
    source: str = ""
    url: str = ""
    problem: str = ""


class NetworkTrial(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the management network that nobody has confirmed yet. Times are seconds since boot.

    `in_force`: since when the new addresses are there and the old ones gone; 0 while it is not so.
    """

    id: str
    settings: dict[str, Any]
    deadline: float
    in_force: float


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
    def boot(self) -> BootFacts | None:
        """How this host was booted; None while PID 1 does not know (until seconds after readiness)."""
        facts = self._facts.get("boot")
        return None if facts is None else msgspec.convert(facts, BootFacts)

    @property
    def document(self) -> DocumentFacts | None:
        """The host document PID 1 found; None without one. Final once `searched`."""
        facts = self._facts.get("document")
        return None if facts is None else msgspec.convert(facts, DocumentFacts)

    @property
    def searched(self) -> bool:
        """Whether PID 1 has looked everywhere: `boot` and `document` will not change any more."""
        return bool(self._facts.get("searched"))

    @property
    def network_trial(self) -> NetworkTrial | None:
        """What the management network is on trial with."""
        facts = self._facts.get("network_trial")
        return None if facts is None else msgspec.convert(facts, NetworkTrial)

    @property
    def words(self) -> dict[str, str]:
        """The kernel command line."""
        return dict(self._facts.get("cmdline") or {})

    def tell(self, verb: str, **more: object) -> None:
        """Send one datagram. Raises `Problem` UNSUPPORTED when hosted, UNAVAILABLE when nobody listens."""
        if not self.present:
            raise Problem(HOSTED.code, HOSTED.message, hint=HOSTED_HINT)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line:
            try:
                line.sendto(msgspec.json.encode({"verb": verb, **more}), str(self._socket))
            except OSError as error:
                raise Problem(Code.UNAVAILABLE, f"PID 1 does not take {verb!r}: {error.strerror}") from error
