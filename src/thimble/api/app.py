"""The ASGI application: from a request to one verb of the contract and back. Knows no verb but by the table.

    route ▸ sign in ▸ role ▸ query and headers ▸ body ▸ service ▸ answer

Whatever happens, the client gets an answer of ours: a value, or a problem document. An exception that is no
`Problem` is our bug: its trace goes to the log under the request's id, the client gets the id.
Nothing secret is logged: no query, no header, no body.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from thimble.api import answer as answers
from thimble.api import codec, pages, routes
from thimble.api.answer import Answer
from thimble.api.auth import Auth, Who
from thimble.api.metrics import TYPE, Metrics, Numbers
from thimble.api.replay import Replay
from thimble.api.request import Receive, Request, Scope, Send
from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.host import Role, Session
from thimble.contract.verbs import PREFIX, VERBS, Shape, Verb
from thimble.core.problem import Code, Problem
from thimble.sys import clock, log

BODY_MAX = 1 << 20
BODY_S = 30.0
COOKIE = "__Host-thimble"
_PREFIX = PREFIX.strip("/").split("/")
_FIXED = ("/", "/healthz", "/metrics", f"{PREFIX}/openapi.json")
_NOT_REPLAYED = ("session.create", "vm.create")  # a session is a secret; VMs keep their keys themselves


class _Seen(msgspec.Struct):
    """What became known of a request while it was handled; for log and metrics."""

    verb: str = ""
    user: str = "-"
    mutates: bool = False


class Api:
    """`services` by noun. `ready` says whether the host may be used; `numbers` feed the metrics."""

    def __init__(
        self,
        *,
        services: Mapping[str, object],
        auth: Auth,
        ready: Callable[[], bool] = lambda: True,
        numbers: Numbers = tuple,
        fingerprint: str = "",
        verbs: tuple[Verb, ...] = VERBS,
    ) -> None:
        self._services = services
        self._auth = auth
        self._ready = ready
        self._fingerprint = fingerprint
        self._root = routes.tree(verbs)
        self._replay = Replay(auth.clock)
        self.metrics = Metrics(numbers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, clock.entropy(6).hex())
        if scope["type"] == "http":
            await self._http(request, send)
        elif scope["type"] == "websocket":
            await self._socket(request, receive, send)

    # ------------------------------------------------------------------ HTTP

    async def _http(self, request: Request, send: Send) -> None:
        begun, seen = clock.since_boot(), _Seen()
        try:
            answer = await self._answer(request, seen)
        except Problem as error:
            error.where = error.where or request.raw_path.decode("latin-1")[:200]
            answer = answers.problem(error)
        except Exception as error:
            answer = answers.problem(_bug(error, request.id))
        if isinstance(answer, Answer):
            self._note(request, seen, answer.status, clock.since_boot() - begun)
            await answers.send_whole(answer, request.id, send)
        else:
            self._note(request, seen, 200, clock.since_boot() - begun)
            await _stream(answer, request, send)

    async def _answer(self, request: Request, seen: _Seen) -> Answer | AsyncIterator[bytes]:
        method = "GET" if request.method == "HEAD" else request.method
        fixed = request.raw_path.decode("latin-1")
        if fixed in _FIXED:
            if method == "GET":
                return self._page(fixed, request, seen)
            return _other_method(method, "GET, HEAD, OPTIONS")
        found = self._find(request)
        verb = found.verbs.get(method)
        if verb is None:
            return _other_method(method, found.allow)
        seen.verb, seen.mutates = verb.name, verb.mutates
        call = await self._decoded(verb, found, request, seen)
        if verb.shape is Shape.SOCKET:
            raise Problem(
                Code.MALFORMED, f"{verb.name} is a WebSocket", hint="Open it as wss:// with an upgrade."
            )
        if verb.shape is Shape.EVENTS:
            return self._events(verb, call, request)
        return _encoded(verb, await self._output(verb, call))

    def _page(self, path: str, request: Request, seen: _Seen) -> Answer:
        if path == "/":
            return pages.front(request.headers.get("host", ""), self._fingerprint)
        if path == "/healthz":
            return pages.health(ready=self._ready())
        if path == "/metrics":
            seen.user = self._identify(request).user
            return Answer(status=200, body=self.metrics.text(), type=TYPE)
        return pages.description()

    def _find(self, request: Request) -> routes.Match:
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

    async def _decoded(
        self, verb: Verb, found: routes.Match, request: Request, seen: _Seen, who: Who | None = None
    ) -> Call[Any]:
        """The call, allowed and read strictly."""
        if verb.role is not None:
            who = who or self._identify(request)
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
            token=who.digest if who else "",
            body=request.stream() if upload else None,
            length=request.length if upload else None,
        )

    async def _output(self, verb: Verb, call: Call[Any]) -> object:
        method = self._method(verb)
        if not call.key or call.dry_run or verb.name in _NOT_REPLAYED or not verb.name.endswith(".create"):
            return await _resolved(method(call))
        from hashlib import sha256

        digest = sha256(msgspec.json.encode((call.path, call.query, call.input))).digest()

        async def work() -> object:
            return await _resolved(method(call))

        return await self._replay.once((call.user, verb.name, call.key), digest, work)

    def _events(self, verb: Verb, call: Call[Any], request: Request) -> AsyncIterator[bytes]:
        from thimble.api import events

        if request.method == "HEAD":
            raise _not_allowed("HEAD")
        if last := request.headers.get("last-event-id"):  # a reconnecting reader is further than its address
            call = msgspec.structs.replace(call, query={**call.query, "after": last})
        who = self._auth.who(call.token)
        return events.frames(self._method(verb)(call), still=lambda: self._auth.still(who))

    def _method(self, verb: Verb) -> Callable[[Call[Any]], Any]:
        noun, _, name = verb.name.partition(".")
        service = self._services.get(noun)
        if service is None:
            raise Problem(Code.UNSUPPORTED, f"this agent has no {noun} service")
        return getattr(service, name)  # type: ignore[no-any-return]

    def _identify(self, request: Request, ticket: str = "") -> Who:
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

    def _note(self, request: Request, seen: _Seen, status: int, seconds: float) -> None:
        self.metrics.seen(seen.verb, status, seconds)
        if seen.mutates or status in (401, 403, 429) or status >= 500:
            path = request.raw_path.decode("latin-1")[:200]
            log.say(
                f"api {request.id} {request.peer or '-'} {seen.user} {request.method} {path} "
                f"{status} {seconds * 1000:.0f} ms"
            )

    # ------------------------------------------------------------------ WebSocket

    async def _socket(self, request: Request, receive: Receive, send: Send) -> None:
        from thimble.api import sockets

        if (await receive())["type"] != "websocket.connect":
            return
        begun, seen = clock.since_boot(), _Seen()
        try:
            who, session = await self._session(request, seen)
        except Exception as error:
            bug = error if isinstance(error, Problem) else _bug(error, request.id)
            self._note(request, seen, bug.status, clock.since_boot() - begun)
            await _deny(answers.problem(bug), request.id, send)
            return
        self._note(request, seen, 101, clock.since_boot() - begun)
        await send({"type": "websocket.accept"})
        await sockets.attend(session, receive, send, still=lambda: self._auth.still(who))

    async def _session(self, request: Request, seen: _Seen) -> tuple[Who, Any]:
        found = self._find(request)
        verb = found.verbs.get("GET")
        if verb is None or verb.shape is not Shape.SOCKET:
            raise Problem(Code.MALFORMED, "this is no WebSocket", hint="Ask with a plain request.")
        seen.verb = verb.name
        given = request.query()
        who = self._identify(request, given.pop("ticket", ""))
        seen.user = who.user
        who.need(verb.role or who.role)
        query, _ = codec.query(verb, given)
        call: Call[None] = Call(
            input=None, path=found.path, query=query, user=who.user, role=who.role, peer=request.peer,
            token=who.digest,
        )  # fmt: skip
        return who, await _resolved(self._method(verb)(call))


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


def _encoded(verb: Verb, output: object) -> Answer:
    answer = answers.value(verb, output)
    if verb.name == "session.create" and isinstance(output, Session):
        return msgspec.structs.replace(answer, headers=(_cookie(output.token, 43_200),))
    if verb.name == "session.delete" and not isinstance(output, DryRun):
        return msgspec.structs.replace(answer, headers=(_cookie("", 0),))
    return answer


async def _resolved(output: Any) -> Any:
    """Services may answer at once or later."""
    return await output if hasattr(output, "__await__") else output


async def _stream(frames: AsyncIterator[bytes], request: Request, send: Send) -> None:
    """Send until the stream ends or the client leaves."""
    head = Answer(status=200, type=b"text/event-stream", headers=((b"x-accel-buffering", b"no"),))
    await send(answers.opening(head, request.id))

    async def carry() -> None:
        async for frame in frames:
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    tasks = (asyncio.ensure_future(carry()), asyncio.ensure_future(request.gone()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(Exception):
            await frames.aclose()  # type: ignore[attr-defined]


async def _deny(answer: Answer, id: str, send: Send) -> None:
    """Refuse an upgrade with a whole answer (ASGI's websocket.http.response)."""
    start = answers.opening(answer, id)
    await send({**start, "type": "websocket.http.response.start"})
    await send({"type": "websocket.http.response.body", "body": answer.body})


def _other_method(method: str, allow: str) -> Answer:
    header = ((b"allow", allow.encode()),)
    if method == "OPTIONS":
        return Answer(status=204, headers=header)
    return answers.problem(_not_allowed(method, allow), header)


def _not_allowed(method: str, allow: str = "") -> Problem:
    hint = f"Allowed: {allow}." if allow else ""
    return Problem(Code.METHOD_NOT_ALLOWED, f"{method} is not possible here", hint=hint)


def _bug(error: Exception, id: str) -> Problem:
    import traceback

    for line in "".join(traceback.format_exception(error)).splitlines():
        log.say(f"api {id} {line}")
    return Problem(
        Code.INTERNAL,
        "something went wrong inside Thimble",
        hint=f"The host's log has the details under {id}.",
    )


def _cookie(token: str, seconds: int) -> tuple[bytes, bytes]:
    text = f"{COOKIE}={token}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={seconds}"
    return b"set-cookie", text.encode()
