"""The console over a WebSocket, with the client library everybody uses."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api_client import answer, request, run, served
from api_world import World
from thimble.contract.host import Role

UPGRADE = {
    "upgrade": "websocket", "connection": "Upgrade", "sec_websocket_version": "13",
    "sec_websocket_key": base64.b64encode(b"k" * 16).decode(),
}  # fmt: skip


def open_console(
    world: World, wire: Any, vm: str = "web1", token: str | None = "", query: str = "", **more: Any
) -> connect:
    headers = {} if token is None else {"authorization": f"Bearer {token or world.admin()}"}
    url = f"wss://127.0.0.1:{wire.port}/api/v1/vms/{vm}/console{query}"
    more.setdefault("additional_headers", headers)
    return connect(url, ssl=wire.tls, server_hostname="localhost", open_timeout=5, **more)


async def talk(world: World, socket: ClientConnection) -> None:
    assert await socket.recv() == b"login: "
    await socket.send('{"resize":[24,80]}')
    await socket.send(b"root\x00\xff")
    assert await socket.recv() == b"root\x00\xff"


def test_bytes_go_both_ways_and_leaving_closes_the_session(world: World) -> None:
    async def story() -> None:
        async with served(world) as wire:
            async with open_console(world, wire) as socket:
                await talk(world, socket)
            await world.vms.lines[0].closed.wait()

    run(story())


def test_a_fragmented_message_and_a_ping_are_understood(world: World) -> None:
    async def story() -> None:
        async with served(world) as wire, open_console(world, wire) as socket:
            assert await socket.recv() == b"login: "
            await (await socket.ping())
            await socket.send([b"ab", b"cd"])
            assert await socket.recv() == b"abcd"

    run(story())


def test_the_end_of_the_line_closes_the_socket(world: World) -> None:
    async def story() -> None:
        async with served(world) as wire, open_console(world, wire) as socket:
            await socket.recv()
            await world.vms.lines[0].queue.put(b"")
            with pytest.raises(ConnectionClosed) as caught:
                await socket.recv()
            assert caught.value.rcvd is not None and caught.value.rcvd.code == 1000

    run(story())


def test_a_browser_opens_it_with_a_ticket_once(world: World) -> None:
    async def story() -> None:
        ticket, _ = world.auth.issue_ticket(world.auth.identify(world.admin()))
        async with served(world) as wire:
            async with open_console(world, wire, token=None, query=f"?ticket={ticket}") as socket:
                await talk(world, socket)
            with pytest.raises(InvalidStatus) as caught:
                async with open_console(world, wire, token=None, query=f"?ticket={ticket}"):
                    pass
            assert caught.value.response.status_code == 401

    run(story())


def test_the_cookie_opens_it_from_the_same_origin_only(world: World) -> None:
    async def story() -> None:
        async with served(world) as wire:
            cookie = {"cookie": f"__Host-thimble={world.admin()}"}
            here = f"https://127.0.0.1:{wire.port}"
            async with open_console(world, wire, additional_headers={**cookie, "origin": here}) as socket:
                await talk(world, socket)
            with pytest.raises(InvalidStatus) as caught:
                async with open_console(world, wire, additional_headers={**cookie, "origin": "https://evil"}):
                    pass
            assert caught.value.response.status_code == 401

    run(story())


@pytest.mark.parametrize(
    ("vm", "role", "status", "code"),
    [
        ("web1", None, 401, b"unauthenticated"),
        ("web1", Role.VIEWER, 403, b"forbidden"),
        ("stopped", Role.OPERATOR, 409, b"conflict"),
        ("web1/start", Role.OPERATOR, 404, b"not-found"),
    ],
)
def test_who_may_not_is_told_so_in_a_problem(
    world: World, vm: str, role: Role | None, status: int, code: bytes
) -> None:
    async def story() -> None:
        token = world.person("ann", role) if role else None
        async with served(world) as wire:
            with pytest.raises(InvalidStatus) as caught:
                async with open_console(world, wire, vm, token=token):
                    pass
        assert caught.value.response.status_code == status
        assert code in (caught.value.response.body or b"")

    run(story())


def test_an_upgrade_elsewhere_and_a_wrong_handshake_are_refused(world: World) -> None:
    async def story() -> None:
        token = {"authorization": f"Bearer {world.admin()}"}
        async with served(world) as wire:
            for path, more in (
                ("/api/v1/vms", UPGRADE),
                ("/api/v1/vms/web1/console", {"upgrade": "websocket"}),
            ):
                reader, writer = await wire.connect()
                writer.write(request("GET", path, **more, **token))
                assert (await answer(reader)).status == 400
                writer.close()

    run(story())


class Ticks:
    """Time between pings that passes when told."""

    def __init__(self) -> None:
        self._ticks: asyncio.Queue[None] = asyncio.Queue()
        self.waiting = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.waiting.set()
        await self._ticks.get()
        self.waiting.clear()

    async def pass_one(self) -> None:
        """Returns when the next one is waited for."""
        self.waiting.clear()
        self._ticks.put_nowait(None)
        await self.waiting.wait()


def test_a_half_open_socket_is_found_by_ping_and_its_session_closed(world: World) -> None:
    ticks = Ticks()

    async def story() -> None:
        async with served(world, sleep=ticks.sleep) as wire:
            reader, writer = await wire.connect()
            token = {"authorization": f"Bearer {world.admin()}"}
            writer.write(request("GET", "/api/v1/vms/web1/console", **UPGRADE, **token))
            assert (await answer(reader)).status == 101
            for _ in range(2):  # the first had the handshake before it
                await ticks.pass_one()
                assert not world.vms.lines[0].closed.is_set()
            passing = asyncio.ensure_future(ticks.pass_one())
            await world.vms.lines[0].closed.wait()  # no pong ever comes from here
            passing.cancel()
            writer.transport.abort()

    run(story())


def test_a_live_socket_outlasts_many_pings(world: World) -> None:
    ticks = Ticks()

    async def story() -> None:
        async with served(world, sleep=ticks.sleep) as wire, open_console(world, wire) as socket:
            await socket.recv()
            for _ in range(5):
                await (await socket.ping())  # what the server has answered it has heard
                await ticks.pass_one()
            await socket.send(b"still")
            assert await socket.recv() == b"still"

    run(story())


def test_a_message_too_large_closes_the_socket(world: World) -> None:
    async def story() -> None:
        async with served(world) as wire, open_console(world, wire) as socket:
            await socket.recv()
            await socket.send(b"x" * 70_000)
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            await world.vms.lines[0].closed.wait()

    run(story())


def test_revoked_access_ends_the_session(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from thimble.api import sockets

    monkeypatch.setitem(sockets.attend.__kwdefaults__, "check", 0.02)

    async def story() -> None:
        async with served(world) as wire, open_console(world, wire) as socket:
            await socket.recv()
            world.auth.sessions.close_all("admin")
            with pytest.raises(ConnectionClosed) as caught:
                await socket.recv()
            assert caught.value.rcvd is not None and caught.value.rcvd.code == 1008

    run(story())


def test_the_end_of_the_server_closes_the_session(world: World) -> None:
    async def story() -> None:
        async with served(world) as wire, open_console(world, wire) as socket:
            await socket.recv()
            await wire.server.close(1.0)
            assert world.vms.lines[0].closed.is_set()

    run(story())
