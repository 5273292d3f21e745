"""Requests and answers on one HTTP/1.1 connection, for those who move the bytes themselves. h11, no I/O.

    request ──► bytes to send        bytes received ──► feed ──► the whole answer, as soon as it is there

Streams and uploads would come in beside `feed`, piece by piece; nobody has needed them yet.
"""

from __future__ import annotations

import h11

from thimble.client.wire import Answer, Request
from thimble.core.problem import Code, Problem

#: Bytes the head of an answer may have, and by default its body.
HEAD_MAX = 64 * 1024
BODY_MAX = 16 * 1024 * 1024
PIECE = 65_536

#: What `request` and `feed` raise when the other side does not speak HTTP, or ends too early.
BROKEN = (h11.RemoteProtocolError, h11.LocalProtocolError)


class Exchange:
    """`host`: for the `Host` header; `limit`: bytes the body of an answer may have."""

    def __init__(self, host: str, *, limit: int = BODY_MAX) -> None:
        self._host = host
        self._limit = limit
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX)
        self._status = 0
        self._body = bytearray()

    @property
    def reusable(self) -> bool:
        """Whether the connection takes another request."""
        return self._http.states == {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE}

    def request(self, asked: Request) -> bytes:
        """The request in bytes. One at a time."""
        headers = {"Host": self._host, "User-Agent": "thimble", **asked.headers}
        if asked.body or asked.method not in ("GET", "HEAD", "DELETE"):
            headers["Content-Length"] = str(len(asked.body))
        head = h11.Request(method=asked.method, target=asked.target, headers=list(headers.items()))
        sent = self._http.send(head) or b""
        if asked.body:
            sent += self._http.send(h11.Data(data=asked.body)) or b""
        return sent + (self._http.send(h11.EndOfMessage()) or b"")

    def feed(self, data: bytes) -> Answer | None:
        """The answer that `data` completes; b"" is the end of the stream. Raises `BROKEN`, and `Problem`
        FAILED for an answer beyond the limit."""
        self._http.receive_data(data)
        while (event := self._http.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response):
                self._status = event.status_code
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > self._limit:
                    raise Problem(
                        Code.FAILED, f"the answer of {self._host} is larger than {self._limit} bytes"
                    )
            elif isinstance(event, h11.EndOfMessage):
                return self._whole()
        return None

    def _whole(self) -> Answer:
        answer, self._body = Answer(self._status, bytes(self._body)), bytearray()
        if self._http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self._http.start_next_cycle()
        return answer
