"""Who is asking: users and their passwords, sessions, tokens of programs, tickets for WebSockets.

    <state>/users/<name>.json       role, scrypt hash
    <state>/tokens/<id>.json        whose, role, expiry, SHA-256 of the token

Sessions and tickets live in RAM, and so does the console's own token, which may only look. Of every token
only the SHA-256 is kept; 256 random bits need no salt.
Invariants: at least one admin exists once there is a user; a token never allows more than its user may now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from thimble.access import passwords
from thimble.access.attempts import Attempts
from thimble.access.records import TokenRecord, UserRecord
from thimble.access.sessions import SESSION_S, TICKET_S, Sessions, sha256
from thimble.contract.host import Role
from thimble.core.ids import identity
from thimble.core.problem import Code, Problem
from thimble.http.request import network
from thimble.state.store import Collection, Record
from thimble.sys.clock import since_boot

#: Who the console UI is before somebody signs in there; no user can be called so.
LOCAL = "(console)"
_RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody signed in. `program`: by a token that lasts, not by a session."""

    user: str
    role: Role
    digest: str
    expires: float
    program: bool = False

    def need(self, role: Role) -> None:
        """Raises `Problem` FORBIDDEN unless this role is at least `role`."""
        if _RANK[self.role] < _RANK[role]:
            raise Problem(
                Code.FORBIDDEN,
                f"this needs the role {role}; {self.user} is {self.role} here",
                hint="Ask an admin for the role, or sign in as somebody who has it.",
            )


class Auth:
    """`rev`: the event stream's place, for lists. Passwords are hashed one at a time, in a thread."""

    def __init__(
        self,
        state: Path,
        *,
        durable: bool,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        rev: Callable[[], int],
        ticks: Callable[[], float] = since_boot,
    ) -> None:
        self.users: Collection[UserRecord] = Collection(UserRecord, noun="user", durable=durable)
        self.users.add_root("", state / "users")
        self.tokens: Collection[TokenRecord] = Collection(TokenRecord, noun="token", durable=durable)
        self.tokens.add_root("", state / "tokens")
        self.rev = rev
        self.clock = clock
        self.ticks = ticks
        self.entropy = entropy
        self._by_digest = {record.value.digest: record.id for record in self.tokens.all()}
        self.sessions = Sessions(ticks, entropy)
        self._by_peer = Attempts(ticks, burst=10, pause=6.0)
        self._by_user = Attempts(ticks, burst=20, pause=3.0)
        self._local = ""  # digest of the token of whoever is root on this host
        self._known: set[tuple[str, str]] = set()  # (user, network) that signed in: not locked out by others
        self._one_hash = asyncio.Lock()
        #: Held by whoever changes users or tokens, from the decision to its end.
        self.turn = asyncio.Lock()

    def warnings(self) -> tuple[str, ...]:
        """Records that are not used, and why."""
        broken = self.users.broken | self.tokens.broken
        return tuple(f"{path}: not used, {why}" for path, why in broken.items())

    def secrets(self) -> list[str]:
        """What may not leave the host with a support bundle, wherever it stands."""
        from thimble.contract import secret

        users = [user.value for user in self.users.all()]
        tokens = [token.value for token in self.tokens.all()]
        return [*secret.values(users), *secret.values(tokens)]

    # ------------------------------------------------------------------ first boot

    def first_password(self, given: str = "") -> str | None:
        """Make `admin` if there is no user. `given`: a password or its hash, from a file. Returns the
        password made here, to be shown on the console; None when there is nothing to show.

        One that was never used is made anew at the next start: nobody may have seen it.
        """
        users = self.users.all()
        unused = len(users) == 1 and passwords.is_unused(users[0].value.password) and not given
        if (users and not unused) or self.users.broken:
            return None
        shown = None
        if given.startswith("scrypt$"):
            passwords.check_hash(given)
            kept = given
        elif given:
            kept = passwords.hashed(given, self.entropy(16))
        else:
            shown = passwords.generate(self.entropy)
            kept = passwords.hashed(shown, self.entropy(16), cost=passwords.CHEAP)
        self.users.put("admin", UserRecord(role=Role.ADMIN, password=kept))
        return shown

    # ------------------------------------------------------------------ passwords

    async def hashed(self, password: str) -> str:
        async with self._one_hash:
            return await asyncio.to_thread(passwords.hashed, password, self.entropy(16))

    async def _matches(self, password: str, kept: str) -> bool:
        async with self._one_hash:
            return await asyncio.to_thread(passwords.matches, password, kept)

    async def prove(self, user: str, password: str, peer: str) -> Record[UserRecord]:
        """The user whose password it is. Raises `Problem` RATE_LIMITED or UNAUTHENTICATED; the answer and
        its time are the same for a wrong password and an unknown user."""
        source = network(peer)
        self._by_peer.take(source)
        if (user, source) not in self._known:
            self._by_user.take(user)
        record = self.users.find(user)
        kept = record.value.password if record else self._decoy()
        if not await self._matches(password[:1024], kept) or record is None:
            raise Problem(
                Code.UNAUTHENTICATED,
                "the user name or the password is wrong",
                hint="The first password of `admin` was shown on the host's console at its first boot.",
            )
        self._by_peer.forgive(source)
        self._by_user.forgive(user)
        if len(self._known) > 4096:
            self._known.clear()
        self._known.add((user, source))
        if passwords.is_weak(kept):
            await self._strengthen(record, password)
        return self.users.get(user)

    async def _strengthen(self, record: Record[UserRecord], password: str) -> None:
        """At its first use, a password hashed cheaply at boot gets its full strength."""
        kept = await self.hashed(password)

        def stronger(now: UserRecord) -> UserRecord:
            changed_meanwhile = now.password != record.value.password
            return now if changed_meanwhile else msgspec.structs.replace(now, password=kept)

        with suppress(Problem):  # deleted meanwhile, or the disk is full: then at the next sign-in
            await self.users.amend(record.id, stronger)

    def _decoy(self) -> str:
        """A hash nobody has the password of, as costly as the users' are."""
        cost = passwords.FULL
        if users := self.users.all():
            cost = int(users[0].value.password.split("$")[1])
        return f"scrypt${cost}$8$1${'00' * 16}${'00' * 32}"

    # ------------------------------------------------------------------ sessions, tokens, tickets

    def open_session(self, user: str) -> tuple[str, Who]:
        """(the token, who it makes one)."""
        token, digest = self.sessions.open(user)
        return token, self.who(digest)

    def local_token(self) -> str:
        """For the console UI before anybody signs in: may look, and is gone with this process."""
        token = self.entropy(32).hex()
        self._local = sha256(token)
        return token

    def issue_ticket(self, who: Who) -> tuple[str, float]:
        """(a ticket that stands for `who` once, when it expires)."""
        return self.sessions.issue_ticket(who.digest), self.clock() + TICKET_S

    def use_ticket(self, ticket: str) -> Who:
        """Raises `Problem` UNAUTHENTICATED."""
        return self.who(self.sessions.use_ticket(ticket))

    def identify(self, token: str) -> Who:
        """Who has `token`; keeps a session alive. Raises `Problem` UNAUTHENTICATED."""
        digest = sha256(token)
        who = self.who(digest)
        self.sessions.extend(digest)
        return who

    def still(self, who: Who) -> bool:
        """May `who` go on? For what outlasts one request."""
        try:
            now = self.who(who.digest)
        except Problem:
            return False
        return _RANK[now.role] >= _RANK[who.role]

    # ------------------------------------------------------------------ changes; whoever asks has the turn

    async def set_user(
        self, name: str, *, role: Role | None = None, password: str | None = None
    ) -> Record[UserRecord]:
        """Give a user another role, another password (as `hashed` makes it) or both. Raises `Problem`."""

        def changed(now: UserRecord) -> UserRecord:
            return UserRecord(role=role or now.role, password=password or now.password)

        return await self.users.amend(name, changed)

    async def add_token(self, value: TokenRecord) -> None:
        """Raises `Problem`."""
        record = await self.tokens.commit(identity("token", self.entropy(5)), value, expect=0)
        self._by_digest[value.digest] = record.id

    async def revoke(self, id: str) -> None:
        """Raises `Problem` NOT_FOUND."""
        record = self.tokens.get(id)
        await self.tokens.remove(id)
        self._by_digest.pop(record.value.digest, None)

    def who(self, digest: str) -> Who:
        """Who the token with this `digest` makes one now. Raises `Problem` UNAUTHENTICATED."""
        if digest == self._local:
            return Who(user=LOCAL, role=Role.VIEWER, digest=digest, expires=self.clock() + SESSION_S)
        if (session := self.sessions.find(digest)) is not None:
            name, left = session
            user = self.users.find(name)
            if user is not None and left > 0:
                return Who(user=user.id, role=user.value.role, digest=digest, expires=self.clock() + left)
            self.sessions.close(digest)
            raise _expired("session")
        token = self.tokens.find(self._by_digest.get(digest, ""))
        if token is None:
            raise Problem(
                Code.UNAUTHENTICATED, "the token is not known here", hint="Sign in: POST /api/v1/session."
            )
        user = self.users.find(token.value.user)
        if user is None or token.value.expires <= self.clock():
            raise _expired("token")
        return Who(
            user=user.id,
            role=min(token.value.role, user.value.role, key=_RANK.__getitem__),
            digest=digest,
            expires=token.value.expires,
            program=True,
        )


def _expired(what: str) -> Problem:
    return Problem(Code.UNAUTHENTICATED, f"the {what} has expired", hint="Sign in again.")
