"""HTTP/1.1 on one connection: bytes ↔ h11 ↔ ASGI. h11 keeps the protocol's rules, this moves bytes and
watches the clock.

    idle ──► head ──► body and answer ──► idle
      └────────┴──────────────┴──► closed      end of stream, time is up, protocol error, answer says close

One coroutine per connection; one request at a time; pipelined bytes wait in h11. Backpressure is the stream
reader's and writer's own. A WebSocket upgrade leaves for `websocket`, on the same streams.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import h11
import msgspec

from thimble.http.request import Message, Receive, Scope, Send, plain
from thimble.sys import clock

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
PIECE = 65_536


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds a peer may take, and bytes it may send before it is understood. `sleep` waits between pings."""

    head_s: float = 10.0  # from a request's first byte to the end of its head
    idle_s: float = 75.0  # between requests
    body_s: float = 30.0  # between two pieces of a body
    write_s: float = 30.0  # until it has read what we sent
    ping_s: float = 20.0  # WebSockets: between pings, and for the pong
    head_bytes: int = 32_768
    frame_bytes: int = 65_536  # WebSockets: one message
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Connection:
    """One peer. `busy` is False while it may be closed without anybody missing an answer."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, app: Asgi, limits: Limits
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.app = app
        self.limits = limits
        self.busy = False
        self.since = clock.since_boot()
        self.last = False  # close after the present answer
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._method = b""
        self._bodiless = False
        self._begun = False  # the answer, by the application
        self._head: h11.Response | None = None  # told by the application, not sent yet

    async def serve(self) -> None:
        """Until the peer or we have had enough. Never raises, save when cancelled."""
        try:
            first = True
            while await self._exchange(first=first):
                first = False
        except h11.RemoteProtocolError as error:
            with suppress(Exception):
                await self._refuse(error.error_status_hint, str(error))
        except (OSError, TimeoutError, h11.LocalProtocolError):
            pass  # it left, or was too slow
        finally:
            self.busy = False
            self.writer.close()

    async def _exchange(self, *, first: bool) -> bool:
        """One request and its answer. False: close."""
        if not self.http.trailing_data[0]:
            await self.feed(self.limits.head_s if first else self.limits.idle_s)
        async with asyncio.timeout(self.limits.head_s):
            event = await self._event(None)
        if not isinstance(event, h11.Request):
            return False
        self.busy, self._begun, self._head = True, False, None
        self._method = event.method
        scope = self._scope(event)
        if event.method == b"GET" and (b"upgrade", b"websocket") in (
            (name, value.lower()) for name, value in event.headers
        ):
            from thimble.http import websocket

            await websocket.serve(self, event, scope)
            return False
        await self.app(scope, self.receive, self.send)
        if not self._begun:
            await self._refuse(500, "no answer")
        self.busy = False
        return await self._turn()

    async def _turn(self) -> bool:
        """Ready for the next request? What is left of a refused body is read for a moment, so that the peer
        gets to read our answer."""
        if self.http.their_state is h11.SEND_BODY:
            with suppress(TimeoutError, OSError, h11.RemoteProtocolError):
                async with asyncio.timeout(1.0):
                    for _ in range(16):
                        if isinstance(await self._event(None), h11.EndOfMessage | h11.ConnectionClosed):
                            break
        if self.last or self.http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return False
        self.http.start_next_cycle()
        return True

    async def feed(self, seconds: float | None) -> bytes:
        """Read what there is; b"" at the end of the stream. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            data = await self.reader.read(PIECE)
        self.http.receive_data(data)
        return data

    async def _event(self, seconds: float | None) -> Any:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            await self.feed(seconds)
        return event

    def _scope(self, request: h11.Request) -> Scope:
        path, _, query = request.target.partition(b"?")
        peer = self.writer.get_extra_info("peername")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode(),
            "method": request.method.decode("latin-1"),
            "scheme": "https" if self.writer.get_extra_info("ssl_object") else "http",
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": (plain(str(peer[0])), peer[1]) if peer else None,
            "server": None,
            "since": self.since,
        }

    # ------------------------------------------------------------------ ASGI

    async def receive(self) -> Message:
        """The next piece of the body; after the body, "disconnect" when the peer leaves."""
        if self.http.their_state is not h11.SEND_BODY:
            return await self._left()
        if self.http.they_are_waiting_for_100_continue:
            await self.write(self.http.send(h11.InformationalResponse(status_code=100, headers=[])))
        try:
            event = await self._event(self.limits.body_s)
        except (TimeoutError, OSError, h11.RemoteProtocolError):
            return {"type": "http.disconnect"}
        if isinstance(event, h11.Data):
            return {"type": "http.request", "body": bytes(event.data), "more_body": True}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _left(self) -> Message:
        while len(self.http.trailing_data[0]) < PIECE:
            if not await self.feed(None):
                break
        else:
            await asyncio.Event().wait()  # it sends on and on: not read until it has its answer
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            headers = [*message["headers"], (b"date", date())]
            self._head = h11.Response(status_code=message["status"], headers=headers)
            return
        data = b""
        if self._head is not None:
            data = self.http.send(self._head) or b""
            self.busy = (b"content-type", b"text/event-stream") not in self._head.headers
            self._bodiless = self._head.status_code in (204, 304) or self._method == b"HEAD"
            self._head = None
        if message.get("body") and not self._bodiless:
            data += self.http.send(h11.Data(data=message["body"])) or b""
        if not message.get("more_body", False):
            data += self.http.send(h11.EndOfMessage()) or b""
        await self.write(data)

    async def write(self, data: bytes | None) -> None:
        """Raises TimeoutError when the peer does not read."""
        if data:
            self.writer.write(data)
            try:
                async with asyncio.timeout(self.limits.write_s):
                    await self.writer.drain()
            except TimeoutError:
                self.writer.transport.abort()
                raise

    async def _refuse(self, status: int, words: str) -> None:
        """For what never reaches the application."""
        from thimble.core.problem import Code, Problem
        from thimble.http import answer

        if self.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        code = Code.INTERNAL if status == 500 else Code.TOO_LARGE if status == 431 else Code.MALFORMED
        error = Problem(code, f"this is no HTTP we understand: {words}")
        made = answer.problem(error, ((b"connection", b"close"),), status=status)
        await answer.send_whole(made, "-", self.send)


_date = (0, b"")


def date() -> bytes:
    """The `Date` header of this second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode())
    return _date[1]
