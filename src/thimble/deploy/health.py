"""Is this boot as good as the one before? Asked at the outermost doors: the API over TLS, gateway, mounts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from thimble.core.problem import Code, Problem
from thimble.deploy.boot_files import Expect
from thimble.host import hardware
from thimble.sys import command

T = TypeVar("T")

PROVE_S = 120.0
_ANSWER_S = 10.0
_ANSWER_MAX = 64 * 1024
_PAUSE_S = 2.0


class _Route(msgspec.Struct, frozen=True):
    gateway: str = ""
    dev: str = ""


class _Neighbour(msgspec.Struct, frozen=True):
    lladdr: str = ""
    state: tuple[str, ...] = ()


class Present(msgspec.Struct, frozen=True, kw_only=True):
    """What the app knows of the present: where PID 1 put the state, mounted datastores, our certificate."""

    state: str
    datastores: tuple[str, ...]
    fingerprint: str
    port: int


class HealthCheck:
    """`present` is asked anew at every look; `within`: the seconds a trial boot gets to be as good as before.

    PID 1 waits longer than that.
    """

    def __init__(
        self,
        present: Callable[[], Present],
        *,
        within: float = PROVE_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._present = present
        self._within = within
        self._sleep = sleep

    async def expectations(self) -> Expect:
        """What works at this moment."""
        now = self._present()
        return Expect(
            state=now.state,
            datastores=now.datastores,
            address=bool(hardware.addresses()),
            gateway=await gateway_answers() is True,
        )

    async def prove(self, expect: Expect) -> str:
        """Empty as soon as all that is expected works; when time is up the reason why not."""
        if why := lost(expect, self._present()):
            return why
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._within
        while (why := await _wrong(expect, self._present())) and clock() < deadline:
            await self._sleep(_PAUSE_S)
        return why


def lost(expect: Expect, now: Present) -> str:
    """What waiting does not mend: where the state lies was settled before the agent began."""
    if expect.state and now.state != expect.state:
        return f"the state is in {now.state or 'nothing'}, and was in a {expect.state} before"
    return ""


async def _wrong(expect: Expect, now: Present) -> str:
    missing = sorted(set(expect.datastores) - set(now.datastores))
    if missing:
        return f"the datastore {missing[0]} is not mounted, and was before"
    addresses = hardware.addresses()
    if expect.address and not addresses:
        return "the management network has no address, and had one before"
    why = await api_answers((*addresses, "127.0.0.1")[0], now.port, now.fingerprint)
    if why:
        return why
    if expect.gateway and await gateway_answers() is not True:
        return "the gateway does not answer, and did before"
    return ""


async def api_answers(address: str, port: int, fingerprint: str) -> str:
    """Empty when our own API says over TLS that it is well; else why not."""
    from thimble.client import peer, wire
    from thimble.client.trust import Trust, context

    where = f"the API at {address}:{port}"
    try:
        async with asyncio.timeout(_ANSWER_S):
            tls = context(Trust(fingerprint=fingerprint))
            connection = await peer.connect(address, port, tls=tls, limit=_ANSWER_MAX)
            try:
                answer = await connection.exchange(wire.Request(method="GET", target="/healthz"))
            finally:
                connection.close()
    except TimeoutError:
        return f"{where} does not answer within {_ANSWER_S:.0f} s"
    except Problem as problem:
        if problem.code is Code.UNAUTHENTICATED:
            return f"{where} is somebody else: it shows another certificate"
        return f"{where} does not answer: {problem.detail}"
    return "" if answer.status == 200 else f"{where} answers {answer.status}"


async def gateway_answers(*, within: float = 3.0) -> bool | None:
    """Does the default gateway answer on the link (ARP, neighbour discovery)? None: there is no gateway."""
    found = None
    for family, option in ((socket.AF_INET, "-4"), (socket.AF_INET6, "-6")):
        for route in await _ip([option, "route", "show", "default"], _Route):
            if route.gateway:
                found = await _reached(family, route, within) or found or False
    return found


async def _reached(family: int, route: _Route, within: float) -> bool:
    deadline = asyncio.get_running_loop().time() + within
    while True:
        scope = socket.if_nametoindex(route.dev) if family == socket.AF_INET6 else 0
        target = (route.gateway, 9, 0, scope) if scope else (route.gateway, 9)
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.sendto(b"", target)  # nobody need listen: to send it, the kernel has to find the gateway
        await asyncio.sleep(0.2)
        for seen in await _ip(["neigh", "show", "to", route.gateway, "dev", route.dev], _Neighbour):
            if seen.lladdr and not {"FAILED", "INCOMPLETE"} & set(seen.state):
                return True
        if asyncio.get_running_loop().time() >= deadline:
            return False


async def _ip(words: list[str], kind: type[T]) -> list[T]:
    """What `ip` prints, one value of `kind` for each line; nothing when it fails."""
    try:
        output = await command.run(["ip", "-j", *words])
        return [msgspec.convert(line, kind) for line in msgspec.json.decode(output.stdout or b"[]")]
    except (Problem, msgspec.DecodeError, msgspec.ValidationError):
        return []
