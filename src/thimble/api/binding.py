"""Binds requests to the verbs of the contract: who asks, for what, with what, and the service that answers.

    route ▸ sign in ▸ role ▸ query and headers ▸ body ▸ service

Knows no verb but by the table. Raises `Problem`; what else a service raises passes through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from thimble.access.auth import Auth, Who
from thimble.api import codec, routes
from thimble.api.replay import Replay
from thimble.contract.call import Call
from thimble.contract.host import Role
from thimble.contract.verbs import PREFIX, Shape, Verb
from thimble.core.problem import Code, Problem
from thimble.dispatch.registry import Registry
from thimble.http.request import Request

BODY_MAX = 1 << 20
BODY_S = 30.0
COOKIE = "__Host-thimble"
_PREFIX = PREFIX.strip("/").split("/")


class Seen(msgspec.Struct):
    """What became known of a request while it was handled; for log and metrics."""

    verb: str = ""
    user: str = "-"
    mutates: bool = False


class Binding:
    def __init__(self, registry: Registry, auth: Auth, verbs: tuple[Verb, ...]) -> None:
        self._registry = registry
        self._auth = auth
        self._root = routes.tree(verbs)
        self._replay = Replay(auth.ticks)

    def find(self, request: Request) -> routes.Match:
        """Raises `Problem` NOT_FOUND."""
        segments = request.segments
        found = routes.find(self._root, segments[2:]) if segments[:2] == _PREFIX else None
        if found is None:
            raise Problem(
                Code.NOT_FOUND,
                "there is nothing at this address",
                hint=f"{PREFIX}/openapi.json lists all there is.",
            )
        return found

    async def call(self, verb: Verb, found: routes.Match, request: Request, seen: Seen) -> Call[Any]:
        """The call, allowed and read strictly."""
        seen.verb, seen.mutates = verb.name, verb.mutates
        who = None
        if verb.role is not None:
            who = self.identify(request)
            seen.user = who.user
            who.need(verb.role)
        query, dry_run = codec.query(verb, request.query())
        upload = verb.shape is Shape.UPLOAD
        return Call(
            input=None if upload else await _input(verb, request),
            path=found.path,
            query=query,
            user=who.user if who else "",
            role=who.role if who else Role.VIEWER,
            dry_run=dry_run,
            if_match=codec.if_match(request.headers.get("if-match")) if verb.mutates else None,
            key=codec.idempotency_key(request.headers.get("idempotency-key")) if verb.mutates else "",
            peer=request.peer,
            since=request.since,
            token=who.digest if who else "",
            body=request.stream() if upload else None,
            length=request.length if upload else None,
        )

    async def output(self, verb: Verb, call: Call[Any]) -> object:
        """What the service answers; for a create asked twice, what it answered."""
        if not call.key or call.dry_run or not verb.replay:
            return await self._registry.call(verb.name, call)
        from hashlib import sha256

        digest = sha256(msgspec.json.encode((call.path, call.query, call.input))).digest()

        async def work() -> object:
            return await self._registry.call(verb.name, call)

        return await self._replay.once((call.user, verb.name, call.key), digest, work)

    def events(self, verb: Verb, call: Call[Any], last: str | None) -> AsyncIterator[bytes]:
        """The frames of an event stream. `last`: the `Last-Event-ID` of a reader that reconnects."""
        from thimble.api import sse

        if last and verb.resumes:  # it is further than its address says
            call = msgspec.structs.replace(call, query={**call.query, verb.resumes: last})
        who = self._auth.who(call.token)
        return sse.frames(self._registry.method(verb.name)(call), still=self.still(who))

    async def session(self, request: Request, seen: Seen) -> tuple[Who, Any]:
        """(who asks, the session the service opened) for a WebSocket."""
        found = self.find(request)
        verb = found.verbs.get("GET")
        if verb is None or verb.shape is not Shape.SOCKET:
            raise Problem(Code.MALFORMED, "this is no WebSocket", hint="Ask with a plain request.")
        seen.verb = verb.name
        given = request.query()
        who = self.identify(request, given.pop("ticket", ""))
        seen.user = who.user
        who.need(verb.role or who.role)
        query, _ = codec.query(verb, given)
        call: Call[None] = Call(
            input=None, path=found.path, query=query, user=who.user, role=who.role, peer=request.peer,
            token=who.digest,
        )  # fmt: skip
        return who, await self._registry.call(verb.name, call)

    def still(self, who: Who) -> Callable[[], bool]:
        """A question to repeat: may `who` go on?"""
        return lambda: self._auth.still(who)

    def identify(self, request: Request, ticket: str = "") -> Who:
        """By bearer token, by a ticket (WebSockets), or by the browser's cookie for what changes nothing."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return self._auth.identify(token.strip())
        if ticket:
            return self._auth.use_ticket(ticket)
        token = request.cookie(COOKIE)
        if token and request.method in ("GET", "HEAD") and request.same_origin:
            return self._auth.identify(token)
        raise Problem(
            Code.UNAUTHENTICATED,
            "this needs a sign-in",
            hint="POST /api/v1/session, then send `Authorization: Bearer TOKEN`.",
        )


async def _input(verb: Verb, request: Request) -> Any:
    if not verb.mutates:
        return None
    try:
        async with asyncio.timeout(BODY_S):
            body = await request.body(BODY_MAX)
    except TimeoutError:
        raise Problem(Code.TIMEOUT, f"the body did not arrive within {BODY_S:.0f} s") from None
    if verb.input is None:
        codec.check_nothing(body)
        return None
    if body.strip():
        codec.check_type(request.headers.get("content-type", ""))
    return codec.decode(verb.input, body)
