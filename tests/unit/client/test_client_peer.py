"""What a host hears from another one that misbehaves, and that nothing waits for ever or fills the memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from thimble.client.peer import Peer, connect
from thimble.client.wire import Request
from thimble.contract.network import SwitchChange
from thimble.core.problem import Code, Problem

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SESSION = b'{"user":"admin","role":"admin","token":"t","expires":1.0}'


def ok(body: bytes = SESSION, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), more, body)


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[str]:
    """A server that does `talk` with each connection; its URL."""

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(attend, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def saying(*answers: bytes) -> tuple[Talk, list[bytes]]:
    """Each connection gives one answer after the other, then hangs up; and the heads of what was asked."""
    heard: list[bytes] = []
    left = list(answers)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while left:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(left.pop(0))
            await writer.drain()

    return talk, heard


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await work()

    return asyncio.run(bounded())


def failure(talk: Talk, *, verb: str = "session.get", **options: Any) -> Problem:
    """The problem a call ends with."""

    async def story() -> Problem:
        async with serving(talk) as url, Peer(url, **options) as peer:
            with pytest.raises(Problem) as caught:
                await peer.call(verb)
            return caught.value

    problem: Problem = run(story)
    return problem


def test_a_call_sends_what_the_contract_says() -> None:
    talk, heard = saying(b"HTTP/1.1 412 No\r\nContent-Length: 0\r\n\r\n")

    async def story() -> None:
        async with serving(talk) as url, Peer(url, token="t") as peer:
            with pytest.raises(Problem) as caught:
                await peer.call("switch.change", SwitchChange(), path={"switch": "nat"}, if_match=3)
            assert caught.value.code is Code.STALE

    run(story)
    head = heard[0].decode().lower()
    assert head.startswith("patch /api/v1/switches/nat http/1.1\r\nhost: 127.0.0.1:")
    for line in (
        "authorization: bearer t",
        'if-match: "3"',
        "content-type: application/json",
        "content-length: 2",
    ):
        assert f"\r\n{line}\r\n" in head


def test_one_connection_serves_one_call_after_the_other() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(ok())

    async def story() -> None:
        async with serving(talk) as url, Peer(url) as peer:
            for _ in range(3):
                await peer.call("session.get")
            assert connections == 1
            await asyncio.gather(*(peer.call("session.get") for _ in range(3)))
            assert connections == 3

    run(story)


def test_a_read_over_a_connection_that_was_closed_meanwhile_is_sent_again_and_a_change_is_not() -> None:
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers once, reads one request more and hangs up on it."""
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ok())
        heard.append(await reader.readuntil(b"\r\n\r\n"))

    async def story() -> None:
        async with serving(talk) as url, Peer(url) as peer:
            await peer.call("session.get")
            await peer.call("session.get")
            assert len(heard) == 3  # the second one twice
            with pytest.raises(Problem) as caught:
                await peer.call("session.delete")
            assert caught.value.code is Code.UNAVAILABLE and "lost the connection" in caught.value.detail
            assert len(heard) == 4

    run(story)


async def nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0)


@pytest.mark.parametrize("talk", [nothing, trickle])
def test_who_is_silent_or_slow_is_not_waited_for(talk: Talk) -> None:
    problem = failure(talk, timeout=0.3)
    assert problem.code is Code.TIMEOUT and "does not answer" in problem.detail


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["nothing", "cut off", "no HTTP", "an endless head", "a bad chunk"],
)
def test_what_is_no_whole_answer_is_a_lost_connection(said: bytes) -> None:
    problem = failure(saying(said)[0])
    assert problem.code is Code.UNAVAILABLE and "lost the connection" in problem.detail and problem.hint


@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_beyond_the_limit_is_refused_before_it_is_held(chunked: bool) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 1000000000"
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n")
        while not reader.at_eof():
            writer.write(b"1000\r\n" + bytes(4096) + b"\r\n" if chunked else bytes(4096))
            await writer.drain()

    problem = failure(talk, limit=100_000)
    assert problem.code is Code.FAILED and "larger than 100000 bytes" in problem.detail


def test_an_answer_of_another_kind_of_server_is_told_apart() -> None:
    assert failure(saying(ok(b"<html>"))[0]).code is Code.FAILED
    assert failure(saying(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")[0]).code is Code.FAILED


def test_nobody_there() -> None:
    async def story() -> None:
        async with serving(nothing) as url:
            pass
        with pytest.raises(Problem) as caught:
            await Peer(url).call("session.get")
        assert caught.value.code is Code.UNAVAILABLE and "cannot reach" in caught.value.detail
        assert "Connection refused" in caught.value.detail

    run(story)


def test_a_cancelled_call_leaves_no_half_used_connection_behind() -> None:
    async def story() -> None:
        asked = asyncio.Event()
        heard: list[bytes] = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            if len(heard) == 1:
                asked.set()
                await reader.read()
                heard.append(b"hung up")
            writer.write(ok())

        async with serving(talk) as url, Peer(url) as peer:
            calling = asyncio.ensure_future(peer.call("session.get"))
            await asked.wait()
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
            await peer.call("session.get")
        assert len(heard) == 3 and b"hung up" in heard

    run(story)


def test_a_connection_to_something_else_than_our_api_knows_its_own_address() -> None:
    talk, heard = saying(b"HTTP/1.1 204 Fine\r\n\r\n")

    async def story() -> None:
        async with serving(talk) as url:
            connection = await connect("127.0.0.1", int(url.rpartition(":")[2]))
            assert connection.local_address == "127.0.0.1"
            answer = await connection.exchange(Request(method="POST", target="/r?x=1", body=b"{}"))
            assert (answer.status, answer.body) == (204, b"")
            connection.close()

    run(story)
    assert heard[0].startswith(b"POST /r?x=1 HTTP/1.1\r\n")
