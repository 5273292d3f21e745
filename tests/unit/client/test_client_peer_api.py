"""One host asks another: the asyncio client against the served API, over TLS."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from api_client import Wire, run, served
from api_world import PASSWORD, World
from thimble.access.tls import ensure, fingerprint
from thimble.client.peer import Peer, connect
from thimble.client.trust import Trust, context
from thimble.client.wire import Request
from thimble.contract import host, vm
from thimble.contract.common import DryRun
from thimble.core.problem import Code, Problem


def certificate(world: World) -> Path:
    return world.state / "tls" / "certificate.pem"


def pinned(world: World) -> Trust:
    return Trust(fingerprint=fingerprint(certificate(world)))


async def serving_context(world: World) -> ssl.SSLContext:
    """Of a server that shows the world's certificate."""
    context, _ = await ensure(world.state, name="box", addresses=())
    return context


def url(wire: Wire, name: str = "127.0.0.1") -> str:
    return f"https://{name}:{wire.port}"


async def refusal(peer: Peer) -> Problem:
    with pytest.raises(Problem) as caught:
        await peer.call("session.get")
    return caught.value


def test_values_dry_runs_and_problems_come_as_they_were_given(world: World) -> None:
    async def story() -> None:
        async with served(world) as wire, Peer(url(wire), trust=pinned(world)) as peer:
            assert (await refusal(peer)).code is Code.UNAUTHENTICATED
            login = host.Login(user="admin", password=PASSWORD)
            peer.token = (await peer.call("session.create", login)).token
            assert (await peer.call("session.get")).user == "admin"
            would = await peer.call("vm.create", vm.VmCreate(name="web1"), dry_run=True)
            assert isinstance(would, DryRun) and would.possible
            with pytest.raises(Problem) as caught:
                await peer.call("vm.change", vm.VmChange(), path={"vm": "x"}, if_match=3)
            assert caught.value.code is Code.STALE and caught.value.hint

    run(story())


def test_an_authority_is_believed_for_the_names_in_the_certificate(world: World) -> None:
    async def story() -> None:
        async with served(world) as wire:
            trust = Trust(ca=str(certificate(world)))
            async with Peer(url(wire, "localhost"), trust=trust, token=world.admin()) as peer:
                assert (await peer.call("session.get")).user == "admin"
            async with Peer(url(wire, "127.0.0.2"), trust=trust, token=world.admin()) as peer:
                assert "cannot reach" in (await refusal(peer)).detail

    run(story())


def test_another_certificate_never_sees_a_byte_of_ours(world: World) -> None:
    """The bytes are looked at after TLS, where a token would be readable."""

    async def story() -> None:
        tls = await serving_context(world)
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.put_nowait(await reader.read(65_536))
            writer.close()

        stranger = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=tls)
        there = f"https://127.0.0.1:{stranger.sockets[0].getsockname()[1]}"
        async with Peer(there, trust=Trust(fingerprint="ab" * 32), token="secret") as peer:
            problem = await refusal(peer)
        assert problem.code is Code.UNAUTHENTICATED and "another certificate" in problem.detail
        assert fingerprint(certificate(world)) in problem.hint
        async with Peer(there, trust=pinned(world), token="known") as peer:
            await refusal(peer)
        assert b"known" in await heard.get()  # and nothing before it
        stranger.close()

    run(story())


def test_a_page_beside_the_contract_is_asked_for_over_a_pinned_connection(world: World) -> None:
    async def story() -> None:
        async with served(world) as wire:
            connection = await connect("127.0.0.1", wire.port, tls=context(pinned(world)))
            answer = await connection.exchange(Request(method="GET", target="/healthz"))
            assert (answer.status, answer.body) == (200, b"ready\n")
            connection.close()

    run(story())
