"""The QMP connection to one QEMU, over `qemu.qmp`: commands, events, descriptors.

The library is imported at the first connection, not at the agent's start. Every command has a timeout. Errors
are `Problem`s in QEMU's own words: FAILED when it said no, UNAVAILABLE when it does not answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from thimble.core.problem import Code, Problem
from thimble.sys import unix

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

Json = dict[str, Any]
OnEvent = Callable[[str, Json], None]

#: Told to the owner when QEMU closes the connection.
LOST = "CONNECTION_LOST"
COMMAND_TIMEOUT = 30.0


class Control:
    """Made by `connect`. `on_event` gets each event's name and data, in order, and `LOST` at the end."""

    def __init__(self, client: QMPClient, on_event: OnEvent) -> None:
        self._client = client
        self._on_event = on_event
        self._waiting: list[tuple[str, str, asyncio.Future[Json]]] = []
        self._closing = False
        self._lost = False
        self._pump = asyncio.get_running_loop().create_task(self._forward())
        self._watch = asyncio.get_running_loop().create_task(self._watch_connection())

    async def execute(
        self, command: str, arguments: Json | None = None, *, timeout: float = COMMAND_TIMEOUT
    ) -> Any:
        """Run a QMP command and return its result."""
        from qemu.qmp import ExecuteError, QMPError

        try:
            return await asyncio.wait_for(self._client.execute(command, arguments), timeout)
        except ExecuteError as error:
            raise Problem(Code.FAILED, f"QEMU: {error}") from error
        except TimeoutError as error:
            raise Problem(
                Code.UNAVAILABLE, f"QEMU did not answer {command} within {timeout:.0f} s"
            ) from error
        except (QMPError, OSError, EOFError) as error:
            raise Problem(Code.UNAVAILABLE, "QEMU has closed its control connection") from error

    def send(self, descriptor: int) -> None:
        """Hand a descriptor over; `getfd` or `add-fd` must be the next command."""
        self._client.send_fd_scm(descriptor)

    async def event(self, name: str, device: str, timeout: float) -> None:
        """Wait for event `name` about `device`. Raises `TimeoutError`."""
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        waiting = (name, device, future)
        self._waiting.append(waiting)
        try:
            await asyncio.wait_for(future, timeout)
        finally:
            self._waiting.remove(waiting)

    async def close(self) -> None:
        """End the connection; QEMU runs on."""
        if not self._lost:
            self._closing = True
            self._watch.cancel()
            self._watch = asyncio.get_running_loop().create_task(self._disconnect())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._watch, 2.0)
        self._pump.cancel()

    async def _disconnect(self) -> None:
        with suppress(Exception):  # what broke the connection is told here once more
            await self._client.disconnect()

    async def _forward(self) -> None:
        async for event in self._client.events:
            name, data = str(event["event"]), cast(Json, event.get("data", {}))
            for wanted, device, future in self._waiting:
                if wanted == name and data.get("device") == device and not future.done():
                    future.set_result(data)
            self._on_event(name, data)

    async def _watch_connection(self) -> None:
        from qemu.qmp import Runstate

        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        if not self._closing:
            self._lost = True
            await self._disconnect()
            self._pump.cancel()  # what came before the end has been given on; nobody closes this one any more
            self._on_event(LOST, {})


async def connect(path: Path, name: str, on_event: OnEvent, *, timeout: float = 30.0) -> Control:
    """Connect to the QEMU listening on `path` and agree on capabilities.

    Raises `Problem` UNAVAILABLE when there is none, or it does not answer.
    """
    import logging

    from qemu.qmp import QMPClient, QMPError

    logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # its failures are told as problems
    client = QMPClient(name)
    try:
        door = unix.dial(path)
        await asyncio.wait_for(client.connect(door), timeout)
    except (QMPError, OSError, EOFError, TimeoutError) as error:
        with suppress(Exception):
            await client.disconnect()
        raise Problem(Code.UNAVAILABLE, f"QEMU does not answer on {path.name}") from error
    return Control(client, on_event)


async def guest_shutdown(path: Path) -> bool:
    """Ask the guest agent behind socket `path` to shut the guest down; False when none answers."""
    return await _guest(path, b'{"execute":"guest-shutdown"}\n')


async def guest_time(path: Path, time: float) -> bool:
    """Have the guest agent set the guest's clock; False when none answers."""
    nanoseconds = int(time * 1e9)
    return await _guest(path, b'{"execute":"guest-set-time","arguments":{"time":%d}}\n' % nanoseconds)


async def _guest(path: Path, words: bytes, *, timeout: float = 3.0) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(sock=unix.dial(path))
    except OSError:
        return False
    try:
        mark = os.getpid()
        writer.write(b'\xff{"execute":"guest-sync","arguments":{"id":%d}}\n' % mark)
        async with asyncio.timeout(timeout):
            while str(mark).encode() not in await reader.readuntil(b"\n"):
                pass
        writer.write(words)
        await writer.drain()
        return True
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        return False
    finally:
        writer.close()


def warm() -> None:
    """Import what the first connection needs."""
    import logging  # noqa: F401

    import qemu.qmp  # noqa: F401
