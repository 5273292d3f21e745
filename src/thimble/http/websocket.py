"""A WebSocket on a connection that asked for the upgrade: `websockets`' sans-I/O protocol ↔ ASGI.

    request ──► refused (a plain answer)
       └──────► open ──► closed      close frame, end of stream, no pong in time, application says close

A half-open peer is found by ping: nothing heard for two ping times means it is gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import h11
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from thimble.http.request import Message, Scope
from thimble.sys import log

if TYPE_CHECKING:
    from thimble.http.protocol import Connection

CLOSE_S = 2.0


async def serve(connection: Connection, request: h11.Request, scope: Scope) -> None:
    """Shake hands, run the application, see the socket closed."""
    socket = Socket(connection, request)
    if refusal := socket.refusal:
        await connection._refuse(400, refusal)
        return
    scope.update(type="websocket", scheme="wss", subprotocols=[])
    scope["extensions"] = {"websocket.http.response": {}}
    try:
        await connection.app(scope, socket.receive, socket.send)
    finally:
        await socket.end()


class Socket:
    """One WebSocket."""

    def __init__(self, connection: Connection, request: h11.Request) -> None:
        self._connection = connection
        self._protocol = ServerProtocol(max_size=connection.limits.frame_bytes)
        headers = Headers()
        for name, value in request.headers:
            headers[name.decode("latin-1")] = value.decode("latin-1")
        # The protocol insists on parsing the request itself; the same one is written out for it again.
        self._protocol.receive_data(Request(request.target.decode("latin-1"), headers).serialize())
        events = self._protocol.events_received()
        self._response = self._protocol.accept(events[0]) if events else None  # type: ignore[arg-type]
        self._messages: deque[Message] = deque([{"type": "websocket.connect"}])
        self._partial: list[bytes] = []
        self._text = False
        self._open = False
        self._pinger: asyncio.Task[None] | None = None
        self._heard = True  # since the last ping

    @property
    def refusal(self) -> str:
        """Why the handshake cannot be; empty when it can."""
        return (
            "" if self._response and self._response.status_code == 101 else "the WebSocket handshake is wrong"
        )

    # ------------------------------------------------------------------ ASGI

    async def receive(self) -> Message:
        while not self._messages:
            try:
                data = await self._connection.reader.read(65_536)
            except OSError:
                data = b""
            self._heard = True
            await self._take(data)
            if not data or self._protocol.state is not State.OPEN:
                self._messages.append({"type": "websocket.disconnect", "code": 1006})
        return self._messages.popleft()

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            await self._accept()
        elif kind == "websocket.send":
            if self._protocol.state is not State.OPEN:
                raise ConnectionResetError("the WebSocket is closed")
            if (text := message.get("text")) is not None:
                self._protocol.send_text(text.encode())
            else:
                self._protocol.send_binary(message["bytes"])
            await self._flush()
        elif kind == "websocket.close" and self._open:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(message.get("code", 1000), message.get("reason") or "")
                await self._flush()
        elif kind == "websocket.http.response.start":
            await self._connection.send({**message, "type": "http.response.start"})
        elif kind == "websocket.http.response.body":
            await self._connection.send({**message, "type": "http.response.body"})

    # ------------------------------------------------------------------ inside

    async def _accept(self) -> None:
        assert self._response is not None
        self._protocol.send_response(self._response)
        self._open, self._connection.busy = True, False
        await self._flush()
        early = self._connection.http.trailing_data[0]
        if early:
            await self._take(early)
        self._pinger = asyncio.ensure_future(self._ping())

    async def _take(self, data: bytes) -> None:
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)
        await self._flush()

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._text = frame.opcode is Opcode.TEXT
            self._partial = []
        elif frame.opcode is not Opcode.CONT:
            return  # ping, pong, close: the protocol answers them
        self._partial.append(bytes(frame.data))
        if frame.fin:
            whole = b"".join(self._partial)
            key, value = ("text", whole.decode(errors="replace")) if self._text else ("bytes", whole)
            self._messages.append({"type": "websocket.receive", key: value})

    async def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                await self._connection.write(data)
            elif self._connection.writer.can_write_eof():
                self._connection.writer.write_eof()

    async def _ping(self) -> None:
        """Ask whether it is there; cut the line when it is not."""
        limits, silent = self._connection.limits, 0
        while self._protocol.state is State.OPEN:
            await limits.sleep(limits.ping_s)
            silent = 0 if self._heard else silent + 1
            self._heard = False
            if silent > 1:
                self._connection.writer.transport.abort()
                return
            if self._protocol.state is State.OPEN:
                self._protocol.send_ping(b"")
                with suppress(OSError, TimeoutError):
                    await self._flush()

    async def end(self) -> None:
        """Say goodbye, wait a moment for theirs."""
        if self._pinger is not None:
            self._pinger.cancel()
            (ended,) = await asyncio.gather(self._pinger, return_exceptions=True)
            if isinstance(ended, Exception):
                log.trouble("api WebSocket ping", ended)
        if not self._open:
            return
        with suppress(OSError, TimeoutError):
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(1001)
                await self._flush()
            async with asyncio.timeout(CLOSE_S):
                while self._protocol.close_rcvd is None and self._protocol.parser_exc is None:
                    data = await self._connection.reader.read(65_536)
                    await self._take(data)
                    if not data:
                        break
