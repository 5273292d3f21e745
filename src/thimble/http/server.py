"""The listening sockets: IPv6 and IPv4, TLS, a cap on connections, a graceful end.

What speaks HTTP (`thimble.http.protocol` and h11) is imported after "ready", or by the first connection.
A connection counts from its accept on, so a handshake that never ends counts too.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from thimble.core.problem import Code, Problem
from thimble.http.request import network, plain
from thimble.sys import log

if TYPE_CHECKING:
    from thimble.http.protocol import Asgi, Connection, Limits

CONNECTIONS = 512
PER_PEER = 128
HANDSHAKE_S = 10.0


async def serve(
    asgi: Asgi,
    *,
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    ready: Callable[[int], object],
    limits: Limits | None = None,
    grace: float = 3.0,
) -> None:
    """Serve until cancelled. `host` "" is every address; `ready` gets the port that is listened on.

    Raises `Problem` IN_USE, FORBIDDEN or FAILED when it cannot listen.
    """
    server = Server(asgi, tls=tls, limits=limits)
    await server.listen(host, port)
    try:
        told = ready(server.port)
        if isinstance(told, Awaitable):
            await told
        await asyncio.sleep(0)
        import thimble.http.protocol  # noqa: F401 — for the first request, and not before "ready"

        await server.accepting()
    finally:
        await server.close(grace)


class Server:
    """`limits` None: the defaults."""

    def __init__(self, asgi: Asgi, *, tls: ssl.SSLContext | None, limits: Limits | None = None) -> None:
        self._asgi = asgi
        self._tls = tls
        self._limits = limits
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._open: dict[asyncio.Task[None], str] = {}  # connections, by their peer
        self._serving: dict[asyncio.Task[None], Connection] = {}
        self._peers: Counter[str] = Counter()

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    async def listen(self, host: str, port: int) -> None:
        self._sockets = _bind(host, port)
        self._accepting = [asyncio.ensure_future(self._accept(each)) for each in self._sockets]
        for accepting in self._accepting:
            accepting.add_done_callback(_heard)

    async def accepting(self) -> None:
        """For as long as it accepts connections. Raises what ended that."""
        await asyncio.gather(*self._accepting)

    async def close(self, grace: float = 3.0) -> None:
        """Stop accepting; end idle connections, streams and consoles now, give the others `grace` seconds."""
        for accepting in self._accepting:
            accepting.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for each in self._sockets:
            each.close()
        for task in list(self._open):
            connection = self._serving.get(task)
            if connection is not None and connection.busy:
                connection.last = True
            else:
                task.cancel()
        if self._open:
            await asyncio.wait(list(self._open), timeout=grace)
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(list(self._open), timeout=grace)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, address = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors: those open go on, new ones wait
                log.say(f"api cannot accept a connection: {error.strerror}")
                await asyncio.sleep(1.0)
                continue
            peer = network(plain(str(address[0])))  # who has one IPv6 address has a /64 of them
            if len(self._open) >= CONNECTIONS or self._peers[peer] >= PER_PEER:
                client.close()
                continue
            task = asyncio.ensure_future(self._serve(client))
            self._open[task] = peer
            self._peers[peer] += 1
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        peer = self._open.pop(task)
        self._serving.pop(task, None)
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]
        if not task.cancelled() and (error := task.exception()):
            log.trouble(f"api connection of {peer}", error)

    async def _serve(self, client: socket.socket) -> None:
        from thimble.http.protocol import Connection, Limits

        loop = asyncio.get_running_loop()
        client.setblocking(False)
        with suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        more: dict[str, Any] = (
            {"ssl": self._tls, "ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": 2.0}
            if self._tls
            else {}
        )
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, client, **more)
        except (OSError, TimeoutError):  # no TLS, or not in time; ssl.SSLError is an OSError
            client.close()
            return
        except asyncio.CancelledError:
            client.close()
            raise
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(reader, writer, self._asgi, self._limits or Limits())
        self._serving[task] = connection
        try:
            await connection.serve()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(2.0):
                    await writer.wait_closed()
        finally:
            transport.abort()


def _heard(task: asyncio.Task[None]) -> None:
    """A server that does not accept any more says so."""
    if not task.cancelled() and (error := task.exception()):
        log.trouble("api accepts no connections", error)


def _bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets; for every address one that takes both families, or IPv4 where IPv6 is off."""
    try:
        if not host:
            return [_both(port)]
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return [_listen(family, address)]
    except OSError as error:
        raise _problem(error, host, port) from error


def _both(port: int) -> socket.socket:
    try:
        return _listen(socket.AF_INET6, ("::", port))
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return _listen(socket.AF_INET, ("0.0.0.0", port))


def _listen(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(address)
        made.listen(128)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def _problem(error: OSError, host: str, port: int) -> Problem:
    where = f"{host or '*'}:{port}"
    if isinstance(error, socket.gaierror):
        return Problem(Code.INVALID, f"{host!r} is no address of this host")
    words = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.EADDRINUSE:
        return Problem(
            Code.IN_USE,
            f"something listens on {where} already",
            hint="Stop it, or choose another port with --listen.",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Problem(
            Code.FORBIDDEN, f"cannot listen on {where}: {words}", hint="Ports below 1024 need root."
        )
    return Problem(Code.FAILED, f"cannot listen on {where}: {words}")
