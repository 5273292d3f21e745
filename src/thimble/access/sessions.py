"""Sessions and tickets: in RAM, so they end with the agent. Known by the SHA-256 of their token alone.

They expire by `ticks`, which never jump as a clock may when the network tells the time.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from thimble.core.problem import Code, Problem

SESSION_S = 12 * 3600.0
TICKET_S = 30.0
SESSIONS_MAX = 2000


class _Pass(msgspec.Struct):
    user: str
    until: float  # in ticks


class Sessions:
    """At most `SESSIONS_MAX` of each; the oldest go first."""

    def __init__(self, ticks: Callable[[], float], entropy: Callable[[int], bytes]) -> None:
        self._ticks = ticks
        self._entropy = entropy
        self._sessions: dict[str, _Pass] = {}
        self._tickets: dict[str, tuple[str, float]] = {}  # (digest of whose, until)

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, user: str) -> tuple[str, str]:
        """(the token of a new session, its digest)."""
        token = self._entropy(32).hex()
        if len(self._sessions) >= SESSIONS_MAX:
            self._sweep()
        digest = sha256(token)
        self._sessions[digest] = _Pass(user, self._ticks() + SESSION_S)
        return token, digest

    def find(self, digest: str) -> tuple[str, float] | None:
        """(its user, seconds left, 0 or less when it has expired)."""
        found = self._sessions.get(digest)
        return (found.user, found.until - self._ticks()) if found is not None else None

    def extend(self, digest: str) -> None:
        """It was used: it lasts its whole time from now on."""
        if (found := self._sessions.get(digest)) is not None:
            found.until = self._ticks() + SESSION_S

    def close(self, digest: str) -> None:
        """Fine when there is none."""
        self._sessions.pop(digest, None)

    def close_all(self, user: str, *, but: str = "") -> None:
        """Sign `user` out everywhere, save the session with the digest `but`."""
        self._sessions = {
            digest: session
            for digest, session in self._sessions.items()
            if session.user != user or digest == but
        }

    def issue_ticket(self, digest: str) -> str:
        """One that stands once, within `TICKET_S`, for the session or token with this digest."""
        now = self._ticks()
        self._tickets = {key: held for key, held in self._tickets.items() if held[1] > now}
        if len(self._tickets) >= SESSIONS_MAX:
            del self._tickets[next(iter(self._tickets))]
        ticket = self._entropy(32).hex()
        self._tickets[sha256(ticket)] = (digest, now + TICKET_S)
        return ticket

    def use_ticket(self, ticket: str) -> str:
        """The digest it stands for. Raises `Problem` UNAUTHENTICATED."""
        held = self._tickets.pop(sha256(ticket), None)
        if held is None or held[1] <= self._ticks():
            raise Problem(
                Code.UNAUTHENTICATED,
                "this ticket is used or expired",
                hint="POST /session/ticket for a new one.",
            )
        return held[0]

    def _sweep(self) -> None:
        now = self._ticks()
        self._sessions = {key: held for key, held in self._sessions.items() if held.until > now}
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]


def sha256(token: str) -> str:
    from hashlib import sha256 as digest

    return digest(token.encode("utf-8", "surrogatepass")).hexdigest()
