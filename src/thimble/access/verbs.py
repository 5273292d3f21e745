"""The verbs of sessions, users and tokens, over `Auth`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from thimble.access.auth import Auth, TokenRecord, UserRecord, Who, sha256
from thimble.contract import host as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect, Nothing
from thimble.contract.host import Role
from thimble.core.ids import identity, name_reasons
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.state.store import Record, check

if TYPE_CHECKING:
    from thimble.contract.document import TokenEntry, UserEntry

Reasons = list[Reason]  # `list` is a verb in the classes below


class SessionService:
    """Signing in and out; open to everybody."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def create(self, call: Call[wire.Login]) -> wire.Session | DryRun:
        user = await self._auth.prove(call.input.user, call.input.password, call.peer)
        if call.dry_run:
            return _would(f"signs {user.id} in")
        token, who = self._auth.open_session(user.id)
        return wire.Session(token=token, user=who.user, role=who.role, expires=who.expires)

    async def get(self, call: Call[None]) -> wire.Session:
        """Who am I; the token itself is never told again."""
        return wire.Session(token="", user=call.user, role=call.role, expires=self._caller(call).expires)

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        if self._caller(call).program:
            raise Problem(
                Code.CONFLICT, "this is a program's token, not a session", hint="Delete the token instead."
            )
        if call.dry_run:
            return _would(f"signs {call.user} out")
        self._auth.close_session(call.token)
        return Nothing()

    async def ticket(self, call: Call[None]) -> wire.Ticket | DryRun:
        if call.dry_run:
            return _would("makes a ticket")
        ticket, expires = self._auth.issue_ticket(self._caller(call))
        return wire.Ticket(ticket=ticket, expires=expires)

    async def password(self, call: Call[wire.PasswordChange]) -> Nothing | DryRun:
        """Change one's own password; signs out everywhere else."""
        user = await self._auth.prove(call.user, call.input.old, call.peer)
        if call.dry_run:
            return _would("changes the password", "signs out every other session")
        kept = await self._auth.hashed(call.input.new)
        self._auth.users.put(user.id, UserRecord(role=user.value.role, password=kept), expect=user.rev)
        self._auth.close_sessions(user.id, but=call.token)
        return Nothing()

    def _caller(self, call: Call[None]) -> Who:
        return self._auth.who(call.token)


class UserService:
    """Admins' work. The last admin stays one."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def list(self, _call: Call[None]) -> wire.UserList:
        users = sorted(self._auth.users.all(), key=lambda record: record.id)
        return wire.UserList(rev=self._auth.rev(), users=tuple(_user(record) for record in users))

    async def create(self, call: Call[wire.UserCreate]) -> wire.User | DryRun:
        name = call.input.name
        blockers = [*name_reasons(name, "$.name"), *_secret_reasons(call.input, needed=True)]
        if self._auth.users.find(name):
            blockers.append(
                Reason(message=f"the user {name} exists already", code=Code.EXISTS, path="$.name")
            )
        if call.dry_run:
            return _would(f"creates the {call.input.role} {name}", blockers=blockers)
        refuse(blockers, f"cannot create the user {name!r}")
        kept = await self._kept(call.input)
        value = UserRecord(role=call.input.role, password=kept)
        try:
            return _user(self._auth.users.put(name, value, expect=0))
        except Problem as error:  # another one was quicker while the password was hashed
            raise (
                Problem(Code.EXISTS, f"the user {name} exists already") if error.code is Code.STALE else error
            ) from None

    async def change(self, call: Call[wire.UserChange]) -> wire.User | DryRun:
        record = self._auth.users.get(call.path["user"])
        check(call.if_match, record.rev, "user")
        role = record.value.role if call.input.role is UNSET else call.input.role
        blockers = self._last_admin(record) if role is not Role.ADMIN else []
        blockers += _secret_reasons(call.input, needed=False)
        new_password = call.input.password is not UNSET or call.input.password_hash is not UNSET
        if call.dry_run:
            what = ["changes the password", "signs them out everywhere"] if new_password else []
            what += [f"makes {record.id} {role}"] if role is not record.value.role else []
            return _would(*what, blockers=blockers)
        refuse(blockers, f"cannot change {record.id}")
        kept = record.value.password
        if new_password:
            kept = await self._kept(call.input)
            refuse(self._last_admin(record) if role is not Role.ADMIN else [], f"cannot change {record.id}")
        changed = self._auth.users.put(record.id, UserRecord(role=role, password=kept), expect=record.rev)
        if new_password:
            self._auth.close_sessions(record.id, but=call.token)  # whoever asks is still at it
        return _user(changed)

    async def _kept(self, given: wire.UserCreate | wire.UserChange) -> str:
        """What is kept of the password that is given, or whose hash is."""
        if given.password is not UNSET:
            return await self._auth.hashed(given.password)
        assert given.password_hash is not UNSET
        return given.password_hash

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        record = self._auth.users.get(call.path["user"])
        check(call.if_match, record.rev, "user")
        blockers = self._last_admin(record)
        theirs = [token for token in self._auth.tokens.all() if token.value.user == record.id]
        if call.dry_run:
            what = [f"revokes the token {token.value.name}" for token in theirs]
            return _would(f"deletes the user {record.id}", *what, blockers=blockers)
        refuse(blockers, f"cannot delete {record.id}")
        for token in theirs:
            self._auth.revoke(token.id)
        self._auth.users.delete(record.id)
        self._auth.close_sessions(record.id)
        return Nothing()

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
        owner = call.user if call.input.user is UNSET else call.input.user
        blockers = name_reasons(call.input.name, "$.name") + self._foreign(call.input, call.user)
        if any(token.value.name == call.input.name for token in self._auth.tokens.all()):
            blockers.append(
                Reason(message=f"a token {call.input.name} exists", code=Code.EXISTS, path="$.name")
            )
        if call.dry_run:
            return _would(f"creates the token {call.input.name}, {call.input.role}", blockers=blockers)
        refuse(blockers, f"cannot create the token {call.input.name!r}")
        token, digest = "", call.input.sha256
        if digest is UNSET:
            token = self._auth.entropy(32).hex()
            digest = sha256(token)
        expires = call.input.expires
        if expires is UNSET:
            expires = self._auth.clock() + call.input.expires_s
        value = TokenRecord(
            name=call.input.name, user=owner, role=call.input.role, digest=digest, expires=expires
        )
        self._auth.index(self._auth.tokens.put(identity("token", self._auth.entropy(5)), value))
        return wire.Session(token=token, user=owner, role=call.input.role, expires=expires)

    def _foreign(self, wanted: wire.TokenCreate, caller: str) -> Reasons:
        """Why it cannot be another user's token, or one whose digest is given."""
        found = []
        if wanted.user is not UNSET and self._auth.users.find(wanted.user) is None:
            found.append(
                Reason(message=f"there is no user {wanted.user}", code=Code.NOT_FOUND, path="$.user")
            )
        if wanted.user not in (UNSET, caller) and wanted.sha256 is UNSET:
            message = "a token that is told can only be one's own: give the sha256 of one for somebody else"
            found.append(Reason(message=message, path="$.user"))
        if any(token.value.digest == wanted.sha256 for token in self._auth.tokens.all()):
            found.append(Reason(message="a token with this digest exists", code=Code.EXISTS, path="$.sha256"))
        return found

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        wanted = call.path["token"]
        named = [token.id for token in self._auth.tokens.all() if wanted in (token.id, token.value.name)]
        record = self._auth.tokens.get(named[0] if named else wanted)
        if call.dry_run:
            return _would(f"revokes the token {record.value.name}")
        self._auth.revoke(record.id)
        return Nothing()


def entries(auth: Auth) -> tuple[tuple[UserEntry, ...], tuple[TokenEntry, ...]]:
    """All users and tokens as the host document writes them.

    A hash below full strength is not told: it lasts until its first use.
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


def _would(*effects: str, blockers: Reasons | None = None) -> DryRun:
    """The dry run's answer; what is blocked has no effects."""
    return DryRun(
        possible=not blockers,
        effects=() if blockers else tuple(Effect(what=what) for what in effects),
        blockers=tuple(blockers or ()),
    )
