"""The peer of the list: the least asyncio can do over TLS, an answer of the same size ready in memory.

python -m benchmarks.minimal PORT BYTES KEY CERTIFICATE
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys

ROW = {"name": "x" * 40, "state": "stopped"}


def body(size: int) -> bytes:
    """JSON of exactly `size` bytes, rows as far as they go (at least 23). Pure."""
    bare = len(json.dumps({"vms": [], "pad": ""}))
    rows = max(0, size - bare) // (len(json.dumps(ROW)) + len(", "))
    start = len(json.dumps({"vms": [ROW] * rows, "pad": ""}))
    return json.dumps({"vms": [ROW] * rows, "pad": "x" * (size - start)}).encode()


def answer(size: int) -> bytes:
    """The whole HTTP answer. Pure."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size + body(
        size
    )


async def serve(port: int, size: int, key: str, certificate: str) -> None:
    """Answer every request on every connection, until killed."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    ready = answer(size)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await _request(reader):
            writer.write(ready)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=tls)
    await server.serve_forever()


async def _request(reader: asyncio.StreamReader) -> bool:
    """Has one come, or has the client gone?"""
    try:
        await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    return True


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
