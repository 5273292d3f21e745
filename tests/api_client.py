"""Two ways to ask the API in tests: in process over ASGI, and over real sockets with TLS.

Every answer asked for in process is checked against the API's own description.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from api_world import World
from thimble.access import tls
from thimble.api import routes
from thimble.contract.openapi import document
from thimble.contract.verbs import PREFIX, VERBS
from thimble.http.protocol import Limits
from thimble.http.server import Server

DOCUMENT: dict[str, Any] = msgspec.json.decode(document("0"))
_TREE = routes.tree(VERBS)


def run(work: Coroutine[Any, Any, Any], timeout: float = 20.0) -> Any:
    """Run a test's coroutine to its end."""

    async def bounded() -> Any:
        async with asyncio.timeout(timeout):
            return await work

    return asyncio.run(bounded())


class Got(msgspec.Struct):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The problem's code; empty when there is none."""
        return self.json["code"] if self.status >= 400 else ""


async def ask(
    world: World,
    method: str,
    path: str,
    body: object = None,
    *,
    token: str = "",
    headers: dict[str, str] | None = None,
    pieces: list[dict[str, Any]] | None = None,
) -> Got:
    """One request in process. `body`: bytes, or anything else as JSON; `pieces`: raw ASGI messages."""
    raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
    sent = {"host": "box", **({"authorization": f"Bearer {token}"} if token else {})}
    sent |= {"content-type": "application/json"} if raw else {}
    sent |= headers or {}
    target, _, query = path.partition("?")
    scope = {
        "type": "http", "method": method, "path": target, "raw_path": target.encode(),
        "query_string": query.encode(), "client": ("192.0.2.1", 9),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
    }  # fmt: skip
    messages = pieces if pieces is not None else [{"type": "http.request", "body": raw, "more_body": False}]
    answer = Got(0, {}, b"")

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await world.api(scope, receive, send)
    check(method, target, answer)
    return answer


def check(method: str, path: str, answer: Got) -> None:
    """Is the answer what the description promises?"""
    kind = answer.headers.get("content-type", "")
    if answer.status >= 400:
        assert kind == "application/problem+json", kind
        assert answer.json["status"] == answer.status
        validator("ProblemDocument").validate(answer.json)
        return
    found = routes.find(_TREE, path.removeprefix(PREFIX).strip("/").split("/"))
    if not path.startswith(PREFIX) or found is None or method not in found.verbs:
        return
    verb = found.verbs[method]
    operation = DOCUMENT["paths"][PREFIX + verb.path.replace("*}", "}")][verb.method.lower()]
    described = operation["responses"][str(answer.status)]
    if "content" not in described:
        assert not answer.body
        return
    assert kind in described["content"]
    if kind == "application/json":
        schema_validator(msgspec.json.encode(described["content"][kind]["schema"])).validate(answer.json)


def validator(name: str) -> Draft202012Validator:
    return schema_validator(b'{"$ref":"#/components/schemas/%b"}' % name.encode())


@functools.cache
def schema_validator(schema: bytes) -> Draft202012Validator:
    return Draft202012Validator({**msgspec.json.decode(schema), "components": DOCUMENT["components"]})


class Wire(msgspec.Struct):
    """A served world: where it listens, and the context of a client that trusts its certificate."""

    server: Server
    port: int
    tls: ssl.SSLContext

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.tls, server_hostname="localhost"
        )


@asynccontextmanager
async def served(world: World, **limits: Any) -> AsyncIterator[Wire]:
    """`world` over TLS on a free port, with these limits."""
    context, _ = await tls.ensure(world.state, name="box", addresses=())
    server = Server(world.api, tls=context, limits=Limits(**limits))
    await server.listen("127.0.0.1", 0)
    client = ssl.create_default_context(cafile=str(world.state / "tls" / "certificate.pem"))
    try:
        yield Wire(server, server.port, client)
    finally:
        await server.close(0.5)


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """An HTTP/1.1 request in bytes; underscores in header names are hyphens. Length added unless given."""
    sent = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if body and "transfer-encoding" not in sent:
        sent.setdefault("content-length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def answer(reader: asyncio.StreamReader, *, bodiless: bool = False) -> Got:
    """Read one answer with a Content-Length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.strip().split("\r\n")
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
    length = 0 if bodiless else int(headers.get("content-length", "0"))
    return Got(int(status.split()[1]), headers, await reader.readexactly(length))
