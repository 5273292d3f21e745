"""The project's own client against the served API: both sides read the contract alike."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable

import pytest

from api_client import run, served
from api_world import PASSWORD, World
from thimble.access.tls import fingerprint
from thimble.client.http import Client
from thimble.client.trust import Trust
from thimble.contract import host, vm
from thimble.contract.common import DryRun, TaskState
from thimble.core.problem import Code, Problem


def with_client(world: World, story: Callable[[Client], None]) -> None:
    """Run `story` in a thread, with a client that trusts the world's certificate."""

    async def serve() -> None:
        async with served(world) as wire:
            trust = Trust(fingerprint=fingerprint(world.state / "tls" / "certificate.pem"))

            def talk() -> None:
                with Client(f"https://127.0.0.1:{wire.port}", trust=trust) as client:
                    story(client)

            await asyncio.to_thread(talk)

    run(serve())


def signed_in(client: Client) -> host.Session:
    session: host.Session = client.call("session.create", host.Login(user="admin", password=PASSWORD))
    client.token = session.token
    return session


def test_sign_in_create_wait_and_sign_out(world: World) -> None:
    def story(client: Client) -> None:
        assert signed_in(client).role is host.Role.ADMIN
        would = client.call("vm.create", vm.VmCreate(name="web1"), dry_run=True)
        assert isinstance(would, DryRun) and would.possible
        started = client.call("vm.create", vm.VmCreate(name="web1"), key="k")
        seen: list[TaskState] = []

        def progress(task: object) -> None:
            seen.append(task.state)  # type: ignore[attr-defined]
            world.go_on()

        assert client.finish(started, progress=progress, timeout=10).state is TaskState.DONE
        assert seen[0] is TaskState.RUNNING
        client.call("session.delete")
        with pytest.raises(Problem) as caught:
            client.call("vm.list")
        assert caught.value.code is Code.UNAUTHENTICATED

    with_client(world, story)


def test_problems_arrive_as_they_were_raised(world: World) -> None:
    def story(client: Client) -> None:
        signed_in(client)
        with pytest.raises(Problem) as caught:
            client.call("vm.get", path={"vm": "a/b c%é"})
        assert (caught.value.code, caught.value.detail) == (Code.NOT_FOUND, "there is no VM 'a/b c%é'")
        with pytest.raises(Problem) as caught:
            client.call("vm.change", vm.VmChange(), path={"vm": "x"}, if_match=3)
        assert caught.value.code is Code.STALE and caught.value.hint

    with_client(world, story)


def test_an_upload_and_what_happens_meanwhile(world: World) -> None:
    def story(client: Client) -> None:
        signed_in(client)
        data = bytes(range(256)) * 4000
        image, _ = client.upload(
            "image.upload", io.BytesIO(data), len(data), path={"image": "local/some disk.img"}
        )
        assert (image.name, image.file_bytes) == ("local/some disk.img", len(data))
        for _ in range(3):
            world.events.publish("vm.changed", "vm-1")
        stream = client.events(after=1000, timeout=10)
        assert [next(stream).rev for _ in range(3)] == [1001, 1002, 1003]
        with pytest.raises(Problem) as caught:
            next(client.events(after=5, timeout=10))
        assert caught.value.code is Code.GONE

    with_client(world, story)


def test_the_console_and_its_refusals(world: World) -> None:
    def story(client: Client) -> None:
        with pytest.raises(Problem) as caught:
            client.console("web1")
        assert caught.value.code is Code.UNAUTHENTICATED
        signed_in(client)
        with pytest.raises(Problem) as caught:
            client.console("stopped")
        assert (caught.value.code, caught.value.hint) == (Code.CONFLICT, "Start it first.")
        with client.console("web1") as line:
            assert line.recv(5) == b"login: "
            line.send(b"root\n")
            assert line.recv(5) == b"root\n"

    with_client(world, story)
