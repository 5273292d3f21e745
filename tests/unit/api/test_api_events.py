"""The event stream: resume, GONE, heartbeat, the end of a sign-in."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from api_client import Got, ask, check, run, validator
from api_world import World
from thimble.api import sse
from thimble.contract.call import Call
from thimble.core.problem import Code, Problem
from thimble.dispatch import event_verbs
from thimble.sys import log


async def opening(world: World, query: str = "", **headers: str) -> tuple[int, bytes]:
    """(status, what a stream sends until its first event), then the reader leaves."""
    got, left, enough = Got(0, {}, b""), asyncio.Event(), asyncio.Event()
    sent = {
        "authorization": f"Bearer {world.admin()}",
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    scope = {
        "type": "http", "method": "GET", "path": "/api/v1/events", "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            got.status = message["status"]
            got.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        got.body += message.get("body", b"")
        if b"data:" in got.body or not message.get("more_body", True):
            enough.set()

    work = asyncio.ensure_future(world.api(scope, receive, send))
    while not enough.is_set() and not (got.body and b"after" not in query.encode()):
        await asyncio.sleep(0)
    if not enough.is_set():
        world.events.publish("vm.changed", "vm-new")
        await enough.wait()
    left.set()
    await work
    check("GET", "/api/v1/events", got)
    return got.status, got.body


def revisions(body: bytes) -> list[int]:
    ids = [int(line[4:]) for line in body.split(b"\n") if line.startswith(b"id: ")]
    told = [msgspec.json.decode(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]
    for event in told:
        validator("Event").validate(event)
    assert [event["rev"] for event in told] == ids
    return ids


def publish(world: World, count: int) -> None:
    for _ in range(count):
        world.events.publish("vm.changed", "vm-1")


def test_a_stream_resumes_after_the_revision_asked_for(world: World) -> None:
    publish(world, 5)
    _, body = run(opening(world, "after=1002"))
    assert revisions(body) == [1003, 1004, 1005]


def test_last_event_id_wins_over_the_address(world: World) -> None:
    publish(world, 5)
    _, body = run(opening(world, "after=1000", last_event_id="1004"))
    assert revisions(body) == [1005]


def test_without_after_only_what_is_new_comes(world: World) -> None:
    publish(world, 5)
    _, body = run(opening(world))
    assert revisions(body) == [1006]


@pytest.mark.parametrize("after", [0, 1003, 9999])
def test_what_is_no_longer_kept_is_gone(world: World, after: int) -> None:
    publish(world, 20)  # the ring keeps 16
    got = run(ask(world, "GET", f"/api/v1/events?after={after}", token=world.admin()))
    assert (got.status, got.code) == (410, "gone") and got.json["hint"]


@pytest.mark.parametrize("after", ["", "-1", "x", "1.5", "9" * 30, "²"])
def test_a_bad_revision_is_invalid(world: World, after: str) -> None:
    got = run(ask(world, "GET", f"/api/v1/events?after={after}", token=world.admin()))
    assert got.status in (400, 422)


def test_head_of_a_stream_is_refused(world: World) -> None:
    assert run(ask(world, "HEAD", "/api/v1/events", token=world.admin())).status == 405


async def collect(world: World, still: list[bool], heartbeat: float = 0.001) -> list[bytes]:
    batches = event_verbs.EventService(world.events).stream(Call(input=None))
    return [frame async for frame in sse.frames(batches, still=lambda: still.pop(0), heartbeat=heartbeat)]


def test_a_quiet_stream_beats_and_ends_with_the_sign_in(world: World) -> None:
    frames = run(collect(world, [True, True, False]))
    assert frames[1:] == [b": still here\n\n"] * 2 + [sse.GONE]


def test_a_reader_too_slow_is_told_to_begin_anew(world: World) -> None:
    async def story() -> None:
        stream = event_verbs.EventService(world.events).stream(Call(input=None))
        frames = sse.frames(stream, still=lambda: True, heartbeat=5)
        await anext(frames)
        publish(world, 1)
        assert revisions(await anext(frames)) == [1001]
        publish(world, 40)
        assert await anext(frames) == sse.GONE
        with pytest.raises(StopAsyncIteration):
            await anext(frames)

    run(story())


def test_gone_is_told_before_the_stream_begins(world: World) -> None:
    with pytest.raises(Problem) as caught:
        event_verbs.EventService(world.events).stream(Call(input=None, query={"after": "1"}))
    assert caught.value.code is Code.GONE


def test_a_stream_that_ends_by_a_fault_of_ours_leaves_it_in_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_batch: object) -> bytes:
        raise RuntimeError("no frame")

    async def receive() -> dict[str, Any]:
        return await asyncio.Event().wait()  # type: ignore[return-value] — it stays

    async def send(_message: Any) -> None: ...

    monkeypatch.setattr(sse, "frame", broken)
    publish(world, 1)
    scope = {
        "type": "http", "method": "GET", "path": "/api/v1/events", "query_string": b"after=1000",
        "headers": [(b"authorization", f"Bearer {world.admin()}".encode())],
    }  # fmt: skip
    run(world.api(scope, receive, send))
    assert any("RuntimeError: no frame" in line for line in log.ring)
