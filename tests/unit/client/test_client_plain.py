"""The console UI's client against the served API, and what its token before sign-in may do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from api_client import ask, run, served
from api_world import PASSWORD, World
from thimble.access.tls import fingerprint
from thimble.client.plain import PlainClient, PlainSocket
from thimble.client.trust import Trust
from thimble.contract import host, vm
from thimble.contract.common import DryRun
from thimble.contract.verbs import PREFIX, VERBS
from thimble.core.problem import Code, Problem


def with_client(world: World, story: Callable[[PlainClient], None]) -> None:
    async def serve() -> None:
        async with served(world) as wire:
            trust = Trust(fingerprint=fingerprint(world.state / "tls" / "certificate.pem"))
            await asyncio.to_thread(lambda: story(PlainClient(f"https://127.0.0.1:{wire.port}", trust=trust)))

    run(serve())


def sign_in(client: PlainClient) -> None:
    client.token = client.call("session.create", host.Login(user="admin", password=PASSWORD)).token


def test_one_connection_serves_many_calls_and_is_made_anew_when_asked(world: World) -> None:
    def story(client: PlainClient) -> None:
        sign_in(client)
        line = client._line
        assert client.call("session.get").user == "admin"
        assert client._line is line
        client.close()
        assert isinstance(client.call("vm.create", vm.VmCreate(name="web1"), dry_run=True), DryRun)
        assert client._line is not line

    with_client(world, story)


def test_refusals_and_strangers_are_problems(world: World) -> None:
    def story(client: PlainClient) -> None:
        with pytest.raises(Problem) as refused:
            client.call("vm.list", token="no such token")
        assert refused.value.code is Code.UNAUTHENTICATED
        stranger = PlainClient(client.url, trust=Trust(fingerprint="00" * 32))
        with pytest.raises(Problem) as other:
            stranger.call("session.get")
        assert "another certificate" in other.value.detail
        with pytest.raises(Problem) as gone:
            PlainClient("https://127.0.0.1:1", trust=Trust(fingerprint="00" * 32)).call("session.get")
        assert gone.value.code is Code.UNAVAILABLE

    with_client(world, story)


def test_a_serial_line_carries_bytes_both_ways(world: World) -> None:
    def story(client: PlainClient) -> None:
        sign_in(client)
        line = PlainSocket(client, "vm.console", {"vm": "web1"}, client.token)
        seen = b""
        while b"login: " not in seen:
            seen += line.receive() or b""
        line.send(b"root\r")
        while b"root\r" not in seen:
            seen += line.receive() or b""
        line.close()

    with_client(world, story)


def test_a_console_that_is_not_there_is_refused_with_its_reason(world: World) -> None:
    def story(client: PlainClient) -> None:
        sign_in(client)
        line = PlainSocket(client, "vm.console", {"vm": "off"}, client.token)
        with pytest.raises(Problem) as refused:
            while line.receive() is not None:
                pass
        assert refused.value.detail == "it is not running"

    with_client(world, story)


def test_the_consoles_own_token_may_look_and_nothing_else(world: World) -> None:
    token = world.auth.local_token()
    allowed = run(ask(world, "GET", f"{PREFIX}/vms", token=token))
    assert allowed.status == 200
    for verb in VERBS:
        if verb.role in (host.Role.ADMIN, host.Role.OPERATOR):
            path = PREFIX + verb.path.replace("{", "").replace("*}", "").replace("}", "")
            assert run(ask(world, verb.method, path, token=token)).status in (400, 403), verb.name


def test_an_agent_started_anew_knows_the_old_token_no_more(world: World) -> None:
    old = world.auth.local_token()
    world.auth.local_token()
    assert run(ask(world, "GET", f"{PREFIX}/vms", token=old)).code == "unauthenticated"
    assert run(ask(world, "GET", f"{PREFIX}/vms", token="")).status == 401
