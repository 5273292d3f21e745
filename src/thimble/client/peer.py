"""One host speaks to another: the calls of `client.http`, in asyncio and without httpx.

    async with Peer("https://10.0.0.7", trust=Trust(fingerprint=…), token=…) as peer:
        neighbour: Host = await peer.call("host.get")

Connections are kept and used again; calls at the same time have one each. A read over a kept connection that
the host has closed meanwhile is sent once more. `connect` is for what is not the API of the contract.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

from thimble.client import wire
from thimble.client.address import base_url, endpoint
from thimble.client.exchange import BODY_MAX, BROKEN, PIECE, Exchange
from thimble.client.trust import OtherCertificate, Trust, context
from thimble.client.wire import Answer, Request
from thimble.core.problem import Code, Problem

if TYPE_CHECKING:
    from typing import Unpack

    import msgspec

#: Connections kept open while nothing is asked.
IDLE_MAX = 4


class Connection:
    """An open connection. No deadline of its own: whoever waits says how long, by `asyncio.timeout`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str, *, limit: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._where = where
        self._http = Exchange(where, limit=limit)
        self._usable = True

    @property
    def local_address(self) -> str:
        """Ours, as the other side sees it unless it is translated on the way."""
        return str(self._writer.get_extra_info("sockname")[0])

    @property
    def reusable(self) -> bool:
        """Whether another request can be sent, as far as we know."""
        return self._usable and self._http.reusable and not self._reader.at_eof()

    async def exchange(self, asked: Request) -> Answer:
        """The whole answer. Raises `Problem` UNAVAILABLE when the connection breaks, FAILED when it is too
        large. After that, and when cancelled, the connection is of no use."""
        self._usable = False
        try:
            self._writer.write(self._http.request(asked))
            await self._writer.drain()
            while (answer := self._http.feed(await self._reader.read(PIECE))) is None:
                pass
        except (OSError, *BROKEN) as error:
            raise wire.lost(self._where, error) from error
        self._usable = True
        return answer

    def close(self) -> None:
        """At once, without waiting for the other side to say goodbye."""
        self._writer.transport.abort()


async def connect(
    host: str, port: int, *, tls: ssl.SSLContext | None = None, limit: int = BODY_MAX
) -> Connection:
    """A connection to `host`; answers may have `limit` bytes. Raises `Problem` UNAVAILABLE, and
    UNAUTHENTICATED when it shows another certificate than the one `tls` is for."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        reader, writer = await asyncio.open_connection(
            host, port, ssl=tls, server_hostname=host if tls else None
        )
    except OtherCertificate as error:
        raise error.problem from error
    except OSError as error:
        raise wire.unreachable(where, _plain(error)) from error
    return Connection(reader, writer, where, limit=limit)


def _plain(error: OSError) -> OSError:
    """In the system's words, where asyncio has its own ("Connect call failed")."""
    if not error.errno or isinstance(error, ssl.SSLError | socket.gaierror):
        return error
    return OSError(error.errno, os.strerror(error.errno))


class Peer:
    """Another host's API. `timeout`: seconds for a whole call; `limit`: bytes an answer may have."""

    def __init__(
        self,
        url: str,
        *,
        trust: Trust | None = None,
        token: str = "",
        timeout: float = 20.0,
        limit: int = BODY_MAX,
    ) -> None:
        self.url = base_url(url)
        self.token = token
        self._address = endpoint(self.url)
        self._tls = context(trust or Trust()) if self.url.startswith("https:") else None
        self._timeout = timeout
        self._limit = limit
        self._idle: list[Connection] = []

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is kept open; the next call is over a new connection."""
        while self._idle:
            self._idle.pop().close()

    async def call(
        self, name: str, input: msgspec.Struct | None = None, **options: Unpack[wire.Options]
    ) -> Any:
        """The answer to the verb `name`, of the type the contract says. Raises `Problem`, nothing else."""
        asked = wire.request(name, input, token=self.token, **options)
        return wire.value(asked, await self.ask(asked))

    async def ask(self, asked: Request) -> Answer:
        """The answer as it is. Raises `Problem` UNAVAILABLE, UNAUTHENTICATED, TIMEOUT, FAILED."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._ask(asked)
        except TimeoutError as error:
            raise wire.silent("{}:{}".format(*self._address)) from error

    async def _ask(self, asked: Request) -> Answer:
        while True:
            kept = self._kept()
            connection = kept or await connect(*self._address, tls=self._tls, limit=self._limit)
            try:
                return await connection.exchange(asked)
            except Problem as error:
                if kept is None or not asked.repeatable or error.code is not Code.UNAVAILABLE:
                    raise
            finally:
                self._keep(connection)

    def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
            connection.close()
        return None

    def _keep(self, connection: Connection) -> None:
        if connection.reusable and len(self._idle) < IDLE_MAX:
            self._idle.append(connection)
        else:
            connection.close()
