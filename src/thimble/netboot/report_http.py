"""The HTTP side of reports: is there a way to the server, and one POST that never takes longer than it may.

A thread for each request; one that waits for a silent server is woken by shutting its socket down.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from thimble.core.problem import Code, Problem


class ReportAddress:
    """Where reports go. Raises `Problem` INVALID for anything but a plain http address."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self.host, self.port = parts.hostname or "", parts.port or 80
        except ValueError as error:
            raise Problem(Code.INVALID, f"thimble.report: {error}") from error
        if parts.scheme != "http" or not self.host:
            raise Problem(Code.INVALID, "thimble.report is no http address")
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


async def source(address: ReportAddress) -> str:
    """The address of ours we reach it by. Raises `OSError` when there is no way to it; sends no packet."""
    return await asyncio.to_thread(_source, address)


async def post(address: ReportAddress, body: bytes, *, timeout: float) -> str:
    """One report, within `timeout` seconds. What is wrong; empty when it was accepted."""
    line = _Line(address.host, address.port, timeout=timeout)
    asking = asyncio.ensure_future(asyncio.to_thread(_post, line, address.target, body))
    try:
        done, _ = await asyncio.wait({asking}, timeout=timeout)
    finally:  # also when cancelled: a thread that waits for its answer would hold up the agent's end
        if not asking.done():
            line.hang_up()
    if done:
        return asking.result()
    await asyncio.wait({asking})  # it trickled; the thread ends now, and the next request waits for that
    return "it takes too long"


class _Line(http.client.HTTPConnection):
    """Its socket is known while it still connects, so that it can be hung up then, too."""

    def connect(self) -> None:
        family, kind, _, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
        self.sock = socket.socket(family, kind)
        self.sock.settimeout(self.timeout)
        self.sock.connect(address)

    def hang_up(self) -> None:
        """Wake the thread that waits on it."""
        with suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


def _source(address: ReportAddress) -> str:
    family, kind, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as asking:
        asking.connect(where)  # no packet is sent
        return str(asking.getsockname()[0])


def _post(line: _Line, target: str, body: bytes) -> str:
    """In a thread."""
    try:
        line.request("POST", target, body, {"Content-Type": "application/json"})
        answer = line.getresponse()
        return "" if 200 <= answer.status < 300 else f"it answers {answer.status}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        line.close()
