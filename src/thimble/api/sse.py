"""Streams of values as server-sent events (WHATWG HTML, 9.2): above all the event stream.

    id: 1764000000007              of events, the revision: what `Last-Event-ID` and `after` take
    data: {"rev":…,"kind":"vm.changed",…}

    : still here                   every 15 s
    event: gone                    the reader was too slow or its sign-in ended; it has to begin anew

Who asks for what is no longer kept gets 410 before anything is sent. A reader that does not read is dropped
by the server's write timeout, never waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from thimble.contract.common import Event
from thimble.core.problem import Problem

HEARTBEAT_S = 15.0
GONE = b"event: gone\ndata: {}\n\n"


_encoder = msgspec.json.Encoder()


def frame(batch: Sequence[msgspec.Struct]) -> bytes:
    """`id` is there for values that a reader can go on after."""
    return b"".join(_identity(one) + b"data: %b\n\n" % _encoder.encode(one) for one in batch)


def _identity(one: msgspec.Struct) -> bytes:
    return b"id: %d\n" % one.rev if isinstance(one, Event) else b""


async def frames(
    batches: AsyncIterator[Sequence[msgspec.Struct]],
    *,
    still: Callable[[], bool],
    heartbeat: float = HEARTBEAT_S,
) -> AsyncIterator[bytes]:
    """The stream in bytes, with a heartbeat; ends when `still` says no or the reader fell behind."""
    yield b"retry: 2000\n: the events of Thimble\n\n"
    following = aiter(batches)
    upcoming: asyncio.Future[Sequence[msgspec.Struct]] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(_next(following))
            await asyncio.wait((upcoming,), timeout=heartbeat)
            if not still():
                yield GONE
                return
            if not upcoming.done():
                yield b": still here\n\n"
                continue
            try:
                batch = upcoming.result()
            except (Problem, StopAsyncIteration):
                yield GONE
                return
            upcoming = None
            yield frame(batch)
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        if (close := getattr(following, "aclose", None)) is not None:
            await close()  # what it holds open ends with it


async def _next(following: AsyncIterator[Sequence[msgspec.Struct]]) -> Sequence[msgspec.Struct]:
    return await anext(following)
