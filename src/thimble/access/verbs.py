"""The verbs of users and tokens, over `Auth`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from thimble.access.auth import Auth
from thimble.access.records import TokenRecord, UserRecord
from thimble.access.sessions import sha256
from thimble.contract import host as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Nothing
from thimble.contract.host import Role
from thimble.core.decision import GO, Decision, unless
from thimble.core.ids import name_reasons
from thimble.core.problem import Code, Reason
from thimble.dispatch import run
from thimble.state.store import Record, check

if TYPE_CHECKING:
    from thimble.contract.document import TokenEntry, UserEntry

Reasons = list[Reason]  # `list` is a verb in the classes below
Tokens = list[Record[TokenRecord]]


class UserService:
    """Admins' work. The last admin stays one."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def list(self, _call: Call[None]) -> wire.UserList:
        users = sorted(self._auth.users.all(), key=lambda record: record.id)
        return wire.UserList(rev=self._auth.rev(), users=tuple(_user(record) for record in users))

    async def create(self, call: Call[wire.UserCreate]) -> wire.User | DryRun:
        name = call.input.name

        def decide() -> Decision[bool]:
            blockers = [*name_reasons(name, "$.name"), *_secret_reasons(call.input, needed=True)]
            if self._auth.users.find(name):
                message = f"the user {name} exists already"
                blockers.append(Reason(message=message, code=Code.EXISTS, path="$.name"))
            made = Decision(plan=GO, effects=(f"creates the {call.input.role} {name}",))
            return unless(blockers, made, refusal=f"cannot create the user {name!r}")

        async def act(_: Decision[bool]) -> wire.User:
            value = UserRecord(role=call.input.role, password=await self._kept(call.input))
            return _user(await self._auth.users.commit(name, value, expect=0))

        return await run.now(call, decide, act, turn=self._auth.turn)

    async def change(self, call: Call[wire.UserChange]) -> wire.User | DryRun:
        name = call.path["user"]
        new_password = call.input.password is not UNSET or call.input.password_hash is not UNSET

        def decide() -> Decision[Role]:
            record = self._auth.users.get(name)
            check(call.if_match, record.rev, "user")
            role = record.value.role if call.input.role is UNSET else call.input.role
            blockers = self._last_admin(record) if role is not Role.ADMIN else []
            blockers += _secret_reasons(call.input, needed=False)
            what = ["changes the password", "signs them out everywhere"] if new_password else []
            what += [f"makes {name} {role}"] if role is not record.value.role else []
            changed = Decision(plan=role, effects=tuple(what))
            return unless(blockers, changed, refusal=f"cannot change {name}")

        async def act(decision: Decision[Role]) -> wire.User:
            password = await self._kept(call.input) if new_password else None
            changed = await self._auth.set_user(name, role=decision.plan, password=password)
            if new_password:
                self._auth.sessions.close_all(name, but=call.token)  # whoever asks is still at it
            return _user(changed)

        return await run.now(call, decide, act, turn=self._auth.turn)

    async def _kept(self, given: wire.UserCreate | wire.UserChange) -> str:
        """What is kept of the password that is given, or whose hash is."""
        if given.password is not UNSET:
            return await self._auth.hashed(given.password)
        assert given.password_hash is not UNSET
        return given.password_hash

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        name = call.path["user"]

        def decide() -> Decision[Tokens]:
            record = self._auth.users.get(name)
            check(call.if_match, record.rev, "user")
            theirs = [token for token in self._auth.tokens.all() if token.value.user == name]
            what = [f"deletes the user {name}", *(f"revokes the token {t.value.name}" for t in theirs)]
            deleted = Decision(plan=theirs, effects=tuple(what))
            return unless(self._last_admin(record), deleted, refusal=f"cannot delete {name}")

        async def act(decision: Decision[Tokens]) -> Nothing:
            for token in decision.plan or ():
                await self._auth.revoke(token.id)
            await self._auth.users.remove(name)
            self._auth.sessions.close_all(name)
            return Nothing()

        return await run.now(call, decide, act, turn=self._auth.turn)

    def _last_admin(self, record: Record[UserRecord]) -> Reasons:
        admins = [user.id for user in self._auth.users.all() if user.value.role is Role.ADMIN]
        if admins != [record.id]:
            return []
        return [Reason(message=f"{record.id} is the last admin; make another one first", code=Code.CONFLICT)]


class TokenService:
    """Tokens for programs: shown once, of the caller's user, never above the caller's role."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def list(self, _call: Call[None]) -> wire.TokenList:
        tokens = tuple(
            wire.Token(
                id=record.id,
                name=record.value.name,
                user=record.value.user,
                role=record.value.role,
                expires=record.value.expires,
            )
            for record in self._auth.tokens.all()
        )
        return wire.TokenList(rev=self._auth.rev(), tokens=tokens)

    async def create(self, call: Call[wire.TokenCreate]) -> wire.Session | DryRun:
        wanted = call.input

        def decide() -> Decision[bool]:
            blockers = name_reasons(wanted.name, "$.name") + self._foreign(wanted, call.user)
            if any(token.value.name == wanted.name for token in self._auth.tokens.all()):
                message = f"a token {wanted.name} exists"
                blockers.append(Reason(message=message, code=Code.EXISTS, path="$.name"))
            made = Decision(plan=GO, effects=(f"creates the token {wanted.name}, {wanted.role}",))
            return unless(blockers, made, refusal=f"cannot create the token {wanted.name!r}")

        async def act(_: Decision[bool]) -> wire.Session:
            token, digest = "", wanted.sha256
            if digest is UNSET:
                token = self._auth.entropy(32).hex()
                digest = sha256(token)
            expires = wanted.expires
            if expires is UNSET:
                expires = self._auth.clock() + wanted.expires_s
            user = call.user if wanted.user is UNSET else wanted.user
            await self._auth.add_token(
                TokenRecord(name=wanted.name, user=user, role=wanted.role, digest=digest, expires=expires)
            )
            return wire.Session(token=token, user=user, role=wanted.role, expires=expires)

        return await run.now(call, decide, act, turn=self._auth.turn)

    def _foreign(self, wanted: wire.TokenCreate, caller: str) -> Reasons:
        """Why it cannot be another user's token, or one whose digest is given."""
        found = []
        if wanted.user is not UNSET and self._auth.users.find(wanted.user) is None:
            found.append(
                Reason(message=f"there is no user {wanted.user}", code=Code.NOT_FOUND, path="$.user")
            )
        if wanted.user not in (UNSET, caller) and wanted.sha256 is UNSET:
            message = "a token made here can only be one's own: give the sha256 of one for somebody else"
            found.append(Reason(message=message, path="$.user"))
        if any(token.value.digest == wanted.sha256 for token in self._auth.tokens.all()):
            found.append(Reason(message="a token with this digest exists", code=Code.EXISTS, path="$.sha256"))
        return found

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        wanted = call.path["token"]

        def decide() -> Decision[str]:
            named = [token.id for token in self._auth.tokens.all() if wanted in (token.id, token.value.name)]
            record = self._auth.tokens.get(named[0] if named else wanted)
            return Decision(plan=record.id, effects=(f"revokes the token {record.value.name}",))

        async def act(decision: Decision[str]) -> Nothing:
            assert decision.plan is not None
            await self._auth.revoke(decision.plan)
            return Nothing()

        return await run.now(call, decide, act, turn=self._auth.turn)


def entries(auth: Auth) -> tuple[tuple[UserEntry, ...], tuple[TokenEntry, ...]]:
    """All users and tokens as the host document writes them.

    A hash below full strength is left out: it lasts until its first use.
    """
    from datetime import UTC, datetime

    from thimble.access.passwords import is_weak
    from thimble.contract.document import TokenEntry, UserEntry

    users = tuple(
        UserEntry(
            name=record.id,
            role=record.value.role,
            password_hash=None if is_weak(record.value.password) else record.value.password,
        )
        for record in sorted(auth.users.all(), key=lambda record: record.id)
    )
    tokens = tuple(
        TokenEntry(
            name=record.value.name,
            user=record.value.user,
            role=record.value.role,
            sha256=record.value.digest,
            expires=datetime.fromtimestamp(int(record.value.expires), UTC),
        )
        for record in sorted(auth.tokens.all(), key=lambda record: record.value.name)
    )
    return users, tokens


def _secret_reasons(given: wire.UserCreate | wire.UserChange, *, needed: bool) -> Reasons:
    """A password or its hash, not both."""
    count = (given.password is not UNSET) + (given.password_hash is not UNSET)
    if count == 2:
        return [Reason(message="give the password or its hash, not both", path="$.password_hash")]
    if needed and not count:
        return [Reason(message="a password is needed, or its hash", path="$.password")]
    return []


def _user(record: Record[UserRecord]) -> wire.User:
    return wire.User(name=record.id, rev=record.rev, role=record.value.role)
