"""The same create asked twice is done once: answers kept by the client's `Idempotency-Key`.

    absent ──► under way ──► kept (a day, the oldest leave first)
                   └───────► absent      it failed: asking again tries again

In RAM: after a restart of the agent a key is new again. VMs keep theirs in their records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from thimble.core.problem import Code, Problem

DAY = 86_400.0


class Kept(msgspec.Struct):
    digest: bytes  # of the request it belongs to
    since: float
    output: asyncio.Future[object]


class Replay:
    """`clock`: seconds; `keep`: how many answers at most."""

    def __init__(self, clock: Callable[[], float], *, keep: int = 1024) -> None:
        self._clock = clock
        self._keep = keep
        self._kept: dict[tuple[str, str, str], Kept] = {}

    async def once(
        self, who: tuple[str, str, str], digest: bytes, work: Callable[[], Awaitable[object]]
    ) -> object:
        """The output of `work`, or what it gave when `who` (user, verb, key) asked before.

        Raises `Problem` CONFLICT when the key came with another request.
        """
        self._forget()
        kept = self._kept.get(who)
        if kept is not None:
            if kept.digest != digest:
                raise Problem(
                    Code.CONFLICT,
                    "this Idempotency-Key was used for another request",
                    hint="Use a new key for a new request.",
                )
            return await asyncio.shield(kept.output)
        output: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._kept[who] = Kept(digest, self._clock(), output)
        try:
            value = await work()
        except BaseException as error:
            del self._kept[who]
            output.set_exception(error if isinstance(error, Problem) else _unknown())
            output.exception()  # seen, though nobody may be waiting
            raise
        output.set_result(value)
        return value

    def _forget(self) -> None:
        old = self._clock() - DAY
        ended = [who for who, kept in self._kept.items() if kept.output.done()]
        surplus = len(self._kept) - self._keep + 1
        for number, who in enumerate(ended):
            if number >= surplus and self._kept[who].since >= old:
                break
            del self._kept[who]


def _unknown() -> Problem:
    return Problem(
        Code.UNAVAILABLE, "the same request, asked at the same time, did not end", hint="Ask again."
    )
