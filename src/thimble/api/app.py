"""The ASGI application: answers, streams and WebSockets around `binding`; pages; the log and the metrics.

Whatever happens, the client gets an answer of ours: a value, or a problem document. An exception that is no
`Problem` is our bug: its trace goes to the log under the request's id, the client gets the id.
Nothing secret is logged: no query, no header, no body.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import msgspec

from thimble.access.attempts import Attempts, TooMany
from thimble.access.auth import Auth
from thimble.api import pages
from thimble.api.binding import COOKIE, Binding, Seen
from thimble.api.metrics import TYPE, Metrics, Numbers
from thimble.api.output import value as output_answer
from thimble.api.streams import hear
from thimble.contract.common import DryRun
from thimble.contract.host import Session
from thimble.contract.verbs import PREFIX, VERBS, Cookie, Shape, Verb
from thimble.core.problem import Code, Problem
from thimble.dispatch.registry import Registry
from thimble.http import answer as answers
from thimble.http.answer import Answer
from thimble.http.request import Receive, Request, Scope, Send
from thimble.sys import clock, log

_SCHEMA = f"{PREFIX}/document/schema"
_FIXED = ("/", "/healthz", "/metrics", f"{PREFIX}/openapi.json", _SCHEMA)


class Api:
    """`ready` says whether the host may be used; `numbers` feed the metrics; `schema` is
    the JSON Schema of the host document, which everybody may read."""

    def __init__(
        self,
        *,
        registry: Registry,
        auth: Auth,
        ready: Callable[[], bool] = lambda: True,
        numbers: Numbers = tuple,
        fingerprint: str = "",
        schema: Callable[[], bytes] | None = None,
        verbs: tuple[Verb, ...] = VERBS,
    ) -> None:
        self._ready = ready
        self._fingerprint = fingerprint
        self._schema = schema
        self._binding = Binding(registry, auth, verbs)
        self._refusals = Attempts(clock.since_boot, burst=50, pause=1.0)
        self.metrics = Metrics(numbers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, clock.entropy(6).hex())
        if scope["type"] == "http":
            await self._http(request, send)
        elif scope["type"] == "websocket":
            await self._socket(request, receive, send)

    # ------------------------------------------------------------------ HTTP

    async def _http(self, request: Request, send: Send) -> None:
        begun, seen = clock.since_boot(), Seen()
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

    async def _answer(self, request: Request, seen: Seen) -> Answer | AsyncIterator[bytes]:
        method = "GET" if request.method == "HEAD" else request.method
        fixed = request.raw_path.decode("latin-1")
        if fixed in _FIXED:
            if method == "GET":
                return self._page(fixed, request, seen)
            return _other_method(method, "GET, HEAD, OPTIONS")
        found = self._binding.find(request)
        verb = found.verbs.get(method)
        if verb is None or (verb.shape is Shape.EVENTS and request.method == "HEAD"):
            return _other_method(request.method, found.allow)
        if verb.shape is Shape.SOCKET:
            raise Problem(
                Code.MALFORMED, f"{verb.name} is a WebSocket", hint="Open it as wss:// with an upgrade."
            )
        call = await self._binding.call(verb, found, request, seen)
        if verb.shape is Shape.EVENTS:
            return self._binding.events(verb, call, request.headers.get("last-event-id"))
        return _encoded(verb, await self._binding.output(verb, call))

    def _page(self, path: str, request: Request, seen: Seen) -> Answer:
        if path == "/":
            return pages.front(request.headers.get("host", ""), self._fingerprint)
        if path == "/healthz":
            return pages.health(ready=self._ready())
        if path == "/metrics":
            seen.user = self._binding.identify(request).user
            return Answer(status=200, body=self.metrics.text(), type=TYPE)
        if path == _SCHEMA and self._schema is not None:
            return Answer(status=200, body=self._schema())
        return pages.description()

    def _note(self, request: Request, seen: Seen, status: int, seconds: float) -> None:
        self.metrics.seen(seen.verb, status, seconds)
        refused = status in (401, 403, 429)
        if not (seen.mutates or refused or status >= 500):
            return
        if refused:
            try:
                self._refusals.take("")  # so that a stranger cannot wash the log away
            except TooMany:
                return
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
        begun, seen = clock.since_boot(), Seen()
        try:
            who, session = await self._binding.session(request, seen)
        except Exception as error:
            bug = error if isinstance(error, Problem) else _bug(error, request.id)
            self._note(request, seen, bug.status, clock.since_boot() - begun)
            await _deny(answers.problem(bug), request.id, send)
            return
        self._note(request, seen, 101, clock.since_boot() - begun)
        still = self._binding.still(who)
        await sockets.attend(session, receive, send, still=still, name=f"api {request.id}")


def _encoded(verb: Verb, output: object) -> Answer:
    answer = output_answer(verb, output)
    if verb.cookie is Cookie.SET and isinstance(output, Session):
        return msgspec.structs.replace(answer, headers=(_cookie(output.token, 43_200),))
    if verb.cookie is Cookie.CLEAR and not isinstance(output, DryRun):
        return msgspec.structs.replace(answer, headers=(_cookie("", 0),))
    return answer


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
        hear(f"api {request.id}", await asyncio.gather(*tasks, return_exceptions=True))
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
    log.trouble(f"api {id}", error)
    return Problem(
        Code.INTERNAL,
        "something went wrong inside Thimble",
        hint=f"The host's log has the details under {id}.",
    )


def _cookie(token: str, seconds: int) -> tuple[bytes, bytes]:
    text = f"{COOKIE}={token}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={seconds}"
    return b"set-cookie", text.encode()
