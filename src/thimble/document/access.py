"""The part of the plan about who may do what: users, tokens, whose updates are accepted and how. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from thimble.contract.deploy import PolicyChange, UpdatePolicy
from thimble.contract.document import Document, TokenEntry, UserEntry
from thimble.contract.host import TokenCreate, UserChange, UserCreate
from thimble.contract.verbs import BY_NAME
from thimble.core.problem import Code
from thimble.document.facts import Facts
from thimble.document.positions import Path
from thimble.document.steps import Ask, Blocker, Effect


def users(document: Document, facts: Facts) -> Iterator[Effect | Blocker]:
    there = {user.name: user for user in facts.users}
    for number, user in enumerate(document.user):
        at: Path = ("user", number)
        old = there.get(user.name)
        if old is not None:
            yield from _changed_user(user, old, at)
        elif user.password_hash is None:
            message = f"the user {user.name} is new and needs a password_hash"
            yield Blocker(at=at, message=message, code=Code.INVALID)
        else:
            wanted = UserCreate(name=user.name, role=user.role, password_hash=user.password_hash)
            ask = Ask(verb="user.create", input=wanted)
            what = f"creates the {user.role} {user.name}"
            yield Effect(what=what, subject=f"user {user.name}", at=at, asks=(ask,))


def _changed_user(user: UserEntry, old: UserEntry, at: Path) -> Iterator[Effect]:
    words = [f"makes {user.name} {user.role}"] if user.role is not old.role else []
    change = UserChange(role=user.role)
    if user.password_hash is not None and user.password_hash != old.password_hash:
        words.append(f"changes the password of {user.name}")
        change = UserChange(role=user.role, password_hash=user.password_hash)
    if words:
        ask = Ask(verb="user.change", path={"user": user.name}, input=change)
        yield Effect(what=", ".join(words), subject=f"user {user.name}", at=at, asks=(ask,))


def tokens(document: Document, facts: Facts) -> Iterator[Effect]:
    there = {token.name: token for token in facts.tokens}
    for number, token in enumerate(document.token):
        old = there.get(token.name)
        if old is not None and whole_seconds(old) == whole_seconds(token):
            continue
        gone = (Ask(verb="token.delete", path={"token": token.name}),) if old else ()
        wanted = TokenCreate(
            name=token.name,
            role=token.role,
            user=token.user,
            sha256=token.sha256,
            expires=token.expires.timestamp(),
        )
        verb = "replaces" if old else "creates"
        yield Effect(
            what=f"{verb} the token {token.name} of {token.user}, {token.role}",
            subject=f"token {token.name}",
            at=("token", number),
            asks=(*gone, Ask(verb="token.create", input=wanted)),
        )


def whole_seconds(token: TokenEntry) -> tuple[str, str, str, str, int]:
    """What makes one token the same as another."""
    return token.name, token.user, token.role, token.sha256, int(token.expires.timestamp())


def policy(document: Document, facts: Facts) -> Iterator[Effect]:
    """What [update] leaves out has its default: it is a policy as a whole."""
    if document.update is None:
        return
    wanted = {name: getattr(document.update, name) for name in UpdatePolicy.__struct_fields__}
    asked = {name: value for name, value in wanted.items() if value != getattr(facts.policy, name)}
    if asked:
        words = ", ".join(f"{name} {value or 'none'}" for name, value in asked.items())
        ask = Ask(verb="deploy.change", input=PolicyChange(**asked))
        yield Effect(
            what=f"sets how the host is updated: {words}", subject="updates", at=("update",), asks=(ask,)
        )


def trust(document: Document, facts: Facts, warnings: list[str]) -> Iterator[Effect]:
    """A certificate is the same whatever stands around it."""
    wanted = document.update.trust if document.update else ()
    if wanted and facts.keys is None:
        warnings.append("update.trust has no effect: this agent takes no updates")
        return
    known = {certificate(text) for text in facts.keys or ()}
    for number, text in enumerate(wanted):
        if certificate(text) in known:
            continue
        known.add(certificate(text))
        name = f"document-{sha256(certificate(text).encode()).hexdigest()[:8]}"
        kind = BY_NAME["key.create"].input
        assert kind is not None
        ask = Ask(verb="key.create", input=kind(name=name, certificate=text))
        what = f"accepts updates signed with the key {name}"
        yield Effect(what=what, subject=f"key {name}", at=("update", "trust", number), asks=(ask,))


def certificate(pem: str) -> str:
    """The certificate itself, as base64 without line ends."""
    body = pem.partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END CERTIFICATE-----")[0]
    return "".join(body.split())
