"""The client of the console UI: the calls of `client.http` over a blocking socket.

The image has no httpx, and the console UI no asyncio, which would cost it 1.2 MB. One connection, opened when
needed, kept while it lasts; a read over a kept one that the host has closed meanwhile is sent once more.
Blocking: for a thread of its own.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from thimble.client import wire
from thimble.client.address import base_url, endpoint
from thimble.client.exchange import BROKEN, PIECE, Exchange
from thimble.client.trust import Trust, context
from thimble.core.problem import Code, Problem

if TYPE_CHECKING:
    from typing import Unpack

    import msgspec


class PlainClient:
    """`timeout`: seconds for each answer to begin, and for each piece of it."""

    def __init__(self, url: str, *, trust: Trust, token: str = "", timeout: float = 20.0) -> None:
        self.url = base_url(url)
        self.token = token
        self._timeout = timeout
        self._tls = context(trust)
        self._line: tuple[ssl.SSLSocket, Exchange] | None = None

    def close(self) -> None:
        """The next call is over a connection made for it."""
        if self._line is not None:
            self._line[0].close()
            self._line = None

    def call(
        self,
        name: str,
        input: msgspec.Struct | None = None,
        *,
        token: str | None = None,
        **options: Unpack[wire.Options],
    ) -> Any:
        """As `Client.call`; `token` instead of the client's own. Raises `Problem`, nothing else."""
        asked = wire.request(name, input, token=self.token if token is None else token, **options)
        return wire.value(asked, self._answer(asked, again=asked.repeatable))

    def connect(self, timeout: float) -> ssl.SSLSocket:
        """A connection of the caller's. Raises `Problem` UNAVAILABLE, UNAUTHENTICATED."""
        host, port = endpoint(self.url)
        try:
            plain = socket.create_connection((host, port), timeout=timeout)
        except OSError as error:
            raise wire.unreachable(f"{host}:{port}", error) from error
        try:
            return self._tls.wrap_socket(plain, server_hostname=host)
        except OSError as error:
            plain.close()
            raise wire.unreachable(f"{host}:{port}", error) from error

    def _answer(self, asked: wire.Request, *, again: bool) -> wire.Answer:
        where = urlsplit(self.url).netloc
        kept, self._line = self._line, None
        pair = kept or (self.connect(self._timeout), Exchange(where))
        line, http = pair
        answer = None
        try:
            line.sendall(http.request(asked))
            while answer is None:
                answer = http.feed(line.recv(PIECE))
        except TimeoutError as error:
            raise wire.silent(where) from error
        except (OSError, *BROKEN) as error:
            if kept is None or not again:
                raise wire.lost(where, error) from error
        finally:
            if answer is not None and http.reusable:
                self._line = pair
            else:
                line.close()
        return answer or self._answer(asked, again=False)


class PlainSocket:
    """A VM's serial line: bytes both ways over a WebSocket, for a loop that waits on `fileno()`."""

    def __init__(self, client: PlainClient, verb: str, path: Mapping[str, str], token: str) -> None:
        from websockets.client import ClientProtocol
        from websockets.datastructures import Headers
        from websockets.uri import parse_uri

        where = wire.target(wire.verb(verb), path, {})
        self._tls = client.connect(timeout=10.0)
        self._protocol = ClientProtocol(parse_uri(f"wss://{urlsplit(client.url).netloc}{where}"))
        asked = self._protocol.connect()
        asked.headers.update(Headers({"Authorization": f"Bearer {token}"}))
        self._protocol.send_request(asked)
        self._open = False
        self.why = ""
        self._send()

    def fileno(self) -> int:
        return self._tls.fileno()

    def close(self) -> None:
        self._tls.close()

    def send(self, data: bytes) -> None:
        """Bytes to the guest; they wait until the line is open."""
        if self._open:
            self._protocol.send_binary(data)
            self._send()

    def receive(self) -> bytes | None:
        """What came: call when readable. None at the end, with `why`. Raises `Problem` when refused."""
        from websockets.frames import Frame, Opcode
        from websockets.http11 import Response

        try:
            data = self._tls.recv(65536)
            while self._tls.pending():
                data += self._tls.recv(65536)
        except TimeoutError:
            return b""
        except OSError as error:
            self.why = str(error)
            return None
        self._protocol.receive_data(data) if data else self._protocol.receive_eof()
        said = b""
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                if event.status_code != 101:
                    raise wire.problem(event.status_code, bytes(event.body or b""))
                self._open = True
            elif isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
                said += event.data
            elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
                self.why = self._protocol.close_reason or ""
        if self._protocol.handshake_exc is not None:
            raise Problem(Code.FAILED, f"the console cannot be opened: {self._protocol.handshake_exc}")
        self._send()
        return said if data else None

    def _send(self) -> None:
        for piece in self._protocol.data_to_send():
            if piece:
                self._tls.sendall(piece)
