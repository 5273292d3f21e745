"""The HTTP side of reports: is there a way to the server, and one POST within its time."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

from thimble.core.problem import Code, Problem

#: Nobody reads what a server has to say to a report.
ANSWER_MAX = 64 * 1024


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
    from thimble.client import peer, wire

    json = {"Content-Type": "application/json"}
    request = wire.Request(method="POST", target=address.target, headers=json, body=body)
    try:
        async with asyncio.timeout(timeout):
            connection = await peer.connect(address.host, address.port, limit=ANSWER_MAX)
            try:
                answer = await connection.exchange(request)
            finally:
                connection.close()
    except TimeoutError:
        return "it takes too long"
    except Problem as problem:
        return problem.detail
    return "" if 200 <= answer.status < 300 else f"it answers {answer.status}"


def _source(address: ReportAddress) -> str:
    family, kind, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as asking:
        asking.connect(where)  # no packet is sent
        return str(asking.getsockname()[0])
