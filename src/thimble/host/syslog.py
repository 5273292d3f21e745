"""Sends the host's log to a syslog server: RFC 5424 by UDP (RFC 5426) or TCP (RFC 6587, counted).

A server that is away costs a try now and then and loses nothing that the rings in RAM still have; by UDP
nobody can know. Only the first failure of a row is logged, and its end.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime

from thimble.contract.hardware import LogLine
from thimble.host.journal import PAUSE_S, Logbook
from thimble.host.loglines import LEVELS
from thimble.host.rules import Target
from thimble.state.background import Background
from thimble.sys import log

_RETRY_FIRST_S, _RETRY_MAX_S = 1.0, 60.0
_CONNECT_S = 10.0
_FACILITY = {"kernel": 0}  # else 3: system daemons
_LONGEST = 2048  # what every receiver takes (RFC 5424, 6.1)


def line(entry: LogLine, host: str) -> bytes:
    """One message, without framing."""
    priority = _FACILITY.get(entry.source, 3) * 8 + LEVELS.index(entry.level)
    stamp = datetime.fromtimestamp(entry.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    name = "".join(mark for mark in host if mark.isascii() and mark.isprintable() and mark != " ") or "-"
    app = "thimble" if entry.source in ("agent", "boot") else entry.source
    head = f"<{priority}>1 {stamp} {name[:255]} {app[:48]} - {entry.source[:32]} - "
    return (head.encode() + entry.text.encode("utf-8", "replace"))[:_LONGEST]


class Sender:
    """`problem` is what keeps lines from going out; empty when they do."""

    def __init__(self, target: Target, logbook: Logbook, *, host: Callable[[], str]) -> None:
        self.target = target
        self.problem = ""
        self._logbook, self._host = logbook, host
        self._writer: asyncio.StreamWriter | None = None
        self._socket: socket.socket | None = None
        self._background = Background()

    async def run(self) -> None:
        """For ever; what is in the rings first, so that a boot is logged from its beginning."""
        cursor, pause = self._logbook.cursor(), _RETRY_FIRST_S
        try:
            waiting: list[LogLine] = []
            while True:
                waiting += await asyncio.to_thread(cursor.read)
                try:
                    while waiting:
                        await self._send(waiting[:50])
                        del waiting[:50]
                except (OSError, TimeoutError) as error:
                    self._failed(error)
                    del waiting[:-10_000]
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _RETRY_MAX_S)
                    continue
                if self.problem:
                    self.problem = ""
                    log.say(f"syslog: lines go to {self.target} again")
                pause = _RETRY_FIRST_S
                await asyncio.sleep(PAUSE_S)
        finally:
            cursor.close()
            self._close()
            await self._background.close()

    async def _send(self, entries: list[LogLine]) -> None:
        name = self._host()
        if self.target.protocol == "udp":
            await self._open_udp()
            assert self._socket is not None
            for entry in entries:
                try:
                    self._socket.send(line(entry, name))
                except BlockingIOError:
                    continue  # UDP may lose lines; it is never waited for
            return
        writer = await self._open_tcp()
        for entry in entries:
            data = line(entry, name)
            writer.write(b"%d %b" % (len(data), data))
        async with asyncio.timeout(_CONNECT_S):
            await writer.drain()

    async def _open_udp(self) -> None:
        if self._socket is not None:
            return
        found = await asyncio.get_running_loop().getaddrinfo(
            self.target.host, self.target.port, type=socket.SOCK_DGRAM
        )
        family, kind, proto, _, address = found[0]
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, proto)
        try:
            made.connect(address)
        except OSError:
            made.close()
            raise
        self._socket = made

    async def _open_tcp(self) -> asyncio.StreamWriter:
        if self._writer is None or self._writer.is_closing():
            async with asyncio.timeout(_CONNECT_S):
                reader, self._writer = await asyncio.open_connection(self.target.host, self.target.port)
            self._background.keep(f"syslog at {self.target}", _until_closed(reader, self._writer))
        return self._writer

    def _failed(self, error: BaseException) -> None:
        number = error.errno if isinstance(error, OSError) else None
        words = os.strerror(number) if number is not None and number > 0 else str(error)
        words = words or "it does not answer"
        if not self.problem:
            log.say(f"warning: syslog: {self.target} does not take the log: {words}")
        self.problem = f"the log does not reach {self.target}: {words}"
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


async def _until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A syslog server says nothing; when it ends the connection, ours is closed too, and made anew."""
    try:
        while await reader.read(4096):
            pass
    except OSError:
        pass
    writer.close()
