"""The client of the console UI: the same calls as `client.http`, with the standard library alone.

The image has no httpx. One connection, opened when needed, kept while it lasts; a request over a kept one
that the host has closed meanwhile is sent once more if it changes nothing. Blocking: for a thread of its own.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from thimble.client import wire
from thimble.client.address import base_url, endpoint
from thimble.client.trust import Trust, context, unreachable
from thimble.core.problem import Code, Problem


class PlainClient:
    """`timeout`: seconds for each answer to begin."""

    def __init__(self, url: str, *, trust: Trust, token: str = "", timeout: float = 20.0) -> None:
        self.url = base_url(url)
        self.token = token
        self._timeout = timeout
        self.tls = context(trust)
        self._line: http.client.HTTPSConnection | None = None

    def close(self) -> None:
        """The next call is over a connection made for it."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def call(
        self,
        name: str,
        input: msgspec.Struct | None = None,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        dry_run: bool = False,
        if_match: int | None = None,
        key: str = "",
        token: str | None = None,
    ) -> Any:
        """As `Client.call`; `token` instead of the client's own. Raises `Problem`, nothing else."""
        verb = wire.verb(name)
        sent = wire.headers(token=self.token if token is None else token, if_match=if_match, key=key)
        body = b""
        if input is not None:
            sent["Content-Type"] = "application/json"
            body = msgspec.json.encode(input)
        target = wire.target(verb, path or {}, query or {}, dry_run=dry_run)
        status, content = self._exchange(verb.method, target, body, sent, again=not verb.mutates)
        if status >= 300:
            raise wire.problem(status, content)
        return wire.decode(content, wire.output_type(verb, dry_run=dry_run))

    def _exchange(
        self, method: str, target: str, body: bytes, sent: dict[str, str], *, again: bool
    ) -> tuple[int, bytes]:
        host, port = endpoint(self.url)
        was_kept = self._line is not None
        if self._line is None:
            self._line = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self.tls)
        try:
            if self._line.sock is None:
                self._line.connect()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise unreachable(f"{host}:{port}", error) from error
        except Problem:
            self.close()
            raise
        try:
            self._line.request(method, target, body or None, sent)
            answer = self._line.getresponse()
            return answer.status, answer.read()
        except TimeoutError as error:
            self.close()
            raise Problem(
                Code.TIMEOUT, f"{host}:{port} does not answer", hint="Is the host very busy?"
            ) from error
        except (OSError, ssl.SSLError, http.client.HTTPException) as error:
            self.close()
            if was_kept and again:
                return self._exchange(method, target, body, sent, again=False)
            raise Problem(
                Code.UNAVAILABLE,
                f"lost the connection to {host}:{port}: {error or type(error).__name__}",
                hint="Look at the state of things before you repeat it.",
            ) from error


class PlainSocket:
    """A VM's serial line: bytes both ways over a WebSocket, for a loop that waits on `fileno()`."""

    def __init__(self, client: PlainClient, verb: str, path: Mapping[str, str], token: str) -> None:
        from websockets.client import ClientProtocol
        from websockets.datastructures import Headers
        from websockets.uri import parse_uri

        where = wire.target(wire.verb(verb), path, {})
        parts = urlsplit(client.url)
        address = endpoint(client.url)
        try:
            plain = socket.create_connection(address, timeout=10.0)
            self._tls = client.tls.wrap_socket(plain, server_hostname=parts.hostname)
        except OSError as error:
            raise unreachable(f"{address[0]}:{address[1]}", error) from error
        self._protocol = ClientProtocol(parse_uri(f"wss://{parts.netloc}{where}"))
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
