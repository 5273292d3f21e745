"""`vm.console` over a WebSocket: binary frames are bytes of the serial line, both ways.

A text frame is a message about the line: `{"resize":[rows,cols]}` is taken and, a serial line having no size,
ignored. The session is what the verb answers: an async iterator of bytes with `write` and `close`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from thimble.api.streams import hear
from thimble.http.request import Receive, Send

CHECK_S = 15.0


class Session(Protocol):
    """One viewer of a serial line; ends when the line does or the viewer is too slow."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def write(self, data: bytes, /) -> None: ...

    def close(self) -> object: ...


async def attend(
    session: Session,
    receive: Receive,
    send: Send,
    *,
    still: Callable[[], bool],
    check: float = CHECK_S,
    name: str = "console",
) -> None:
    """Accept the socket, carry bytes until one side ends, then end the other. `name`: for the log."""
    try:
        await send({"type": "websocket.accept"})
    except BaseException:
        await _close(session)
        raise
    work = (
        asyncio.ensure_future(_down(session, send)),
        asyncio.ensure_future(_up(session, receive)),
        asyncio.ensure_future(_watch(still, check)),
    )
    code, why = 1000, "the line has ended"
    try:
        ended, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        if work[2] in ended:
            code, why = 1008, "the sign-in has ended"
        if work[1] in ended and work[1].exception() is None:
            code = 0  # the client left by itself
    finally:
        for task in work:
            task.cancel()
        hear(name, await asyncio.gather(*work, return_exceptions=True))
        await _close(session)
    if code:
        await send({"type": "websocket.close", "code": code, "reason": why})


async def _close(session: Session) -> None:
    closing = session.close()
    if hasattr(closing, "__await__"):
        await closing


async def _down(session: Session, send: Send) -> None:
    async for data in session:
        if data:
            await send({"type": "websocket.send", "bytes": data})


async def _up(session: Session, receive: Receive) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        if data := message.get("bytes"):
            await session.write(data)


async def _watch(still: Callable[[], bool], check: float) -> None:
    while still():
        await asyncio.sleep(check)
