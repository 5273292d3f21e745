"""Binds requests to the verbs of the contract: who asks, for what, with what, and the service that answers.

    route ▸ sign in ▸ role ▸ query and headers ▸ body ▸ service

Knows no verb but by the table. Raises `Problem`; what else a service raises passes through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from thimble.access.auth import Auth, Who
from thimble.api import codec, routes
from thimble.api.replay import Replay
from thimble.contract.call import Call
from thimble.contract.host import Role
from thimble.contract.verbs import PREFIX, Shape, Verb
from thimble.core.problem import Code, Problem
from thimble.http.request import Request

BODY_MAX = 1 << 20
BODY_S = 30.0
COOKIE = "__Host-thimble"
_PREFIX = PREFIX.strip("/").split("/")
_NOT_REPLAYED = ("session.create", "vm.create")  # a session is a secret; VMs keep their keys themselves


class Seen(msgspec.Struct):
    """What became known of a request while it was handled; for log and metrics."""

    verb: str = ""
    user: str = "-"
    mutates: bool = False


class Binding:
    """`services` by noun."""

    def __init__(self, services: Mapping[str, object], auth: Auth, verbs: tuple[Verb, ...]) -> None:
        self._services = services
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
        method = self._method(verb)
        if not call.key or call.dry_run or verb.name in _NOT_REPLAYED or not verb.name.endswith(".create"):
            return await _resolved(method(call))
        from hashlib import sha256

        digest = sha256(msgspec.json.encode((call.path, call.query, call.input))).digest()

        async def work() -> object:
            return await _resolved(method(call))

        return await self._replay.once((call.user, verb.name, call.key), digest, work)

    def events(self, verb: Verb, call: Call[Any], last: str | None) -> AsyncIterator[bytes]:
        """The frames of an event stream. `last`: the `Last-Event-ID` of a reader that reconnects."""
        from thimble.api import sse

        if last and verb.name == "event.stream":  # it is further than its address says
            call = msgspec.structs.replace(call, query={**call.query, "after": last})
        who = self._auth.who(call.token)
        return sse.frames(self._method(verb)(call), still=self.still(who))

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
        return who, await _resolved(self._method(verb)(call))

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

    def _method(self, verb: Verb) -> Callable[[Call[Any]], Any]:
        noun, _, name = verb.name.partition(".")
        service = self._services.get(noun)
        if service is None:
            raise Problem(Code.UNSUPPORTED, f"this agent has no {noun} service")
        return getattr(service, name)  # type: ignore[no-any-return]


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


async def _resolved(output: Any) -> Any:
    """Services may answer at once or later."""
    return await output if hasattr(output, "__await__") else output
