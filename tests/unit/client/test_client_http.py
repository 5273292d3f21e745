"""The client against a fake transport: tasks, uploads, events and troubles."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable

import httpx
import msgspec
import pytest

from thimble.client.http import Client
from thimble.contract.common import Task, TaskState
from thimble.contract.network import SwitchChange
from thimble.contract.verbs import Started
from thimble.contract.vm import VmCreate
from thimble.core.problem import Code, Problem

RUNNING = Task(id="task-1", verb="vm.create", subject="vm-1", state=TaskState.RUNNING, step="volumes")
DONE = msgspec.structs.replace(RUNNING, state=TaskState.DONE, progress=1.0)
FAILED = msgspec.structs.replace(
    RUNNING, state=TaskState.FAILED, problem=Problem(Code.NO_SPACE, "full", hint="tidy up").document()
)


def client(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("https://host", token="t", transport=httpx.MockTransport(answer))


def json_answer(value: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=msgspec.json.encode(value))


def test_a_call_sends_what_the_contract_says_and_decodes_its_answer() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return json_answer(Started(task=RUNNING, subject="vm-1"), 202)

    started = client(answer).call("vm.create", VmCreate(name="web1"), key="k", if_match=3)
    assert started == Started(task=RUNNING, subject="vm-1")
    assert (seen[0].method, seen[0].url.path) == ("POST", "/api/v1/vms")
    assert json.loads(seen[0].content)["name"] == "web1"
    assert seen[0].headers["idempotency-key"] == "k"
    assert seen[0].headers["if-match"] == '"3"'


def test_a_change_sends_only_what_changes() -> None:
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(404)

    with pytest.raises(Problem):
        client(answer).call("switch.change", SwitchChange(), path={"switch": "nat"})
    assert json.loads(bodies[0]) == {}


def test_waiting_tells_progress_and_ends_with_the_task() -> None:
    answers = iter([RUNNING, DONE])
    heard: list[str] = []
    task = client(lambda _: json_answer(next(answers))).wait(
        RUNNING, progress=lambda task: heard.append(task.state)
    )
    assert task == DONE
    assert heard == ["running", "running", "done"]


def test_a_failed_task_raises_its_own_problem() -> None:
    with pytest.raises(Problem, match="full") as caught:
        client(lambda _: json_answer(FAILED)).wait(RUNNING)
    assert caught.value.code is Code.NO_SPACE
    assert caught.value.hint == "tidy up"


def test_waiting_has_an_end() -> None:
    with pytest.raises(Problem) as caught:
        client(lambda _: json_answer(RUNNING)).wait(RUNNING, timeout=0.0)
    assert caught.value.code is Code.TIMEOUT
    assert "task-1" in caught.value.hint


def test_an_upload_streams_with_its_length_and_tells_the_digest() -> None:
    content = bytes(range(256)) * 3000
    sent: list[int] = []
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return json_answer(
            {
                "name": "local/x",
                "datastore": "local",
                "format": "raw",
                "file_bytes": 1,
                "size_bytes": 1,
                "sha256": "d",
            }
        )

    image, digest = client(answer).upload(
        "image.upload", io.BytesIO(content), len(content), path={"image": "x"}, progress=sent.append
    )
    assert image.name == "local/x"
    assert digest == hashlib.sha256(content).hexdigest()
    assert seen[0].content == content
    assert seen[0].headers["content-length"] == str(len(content))
    assert "transfer-encoding" not in seen[0].headers
    assert sent[-1] == len(content)
    assert sent == sorted(sent)


def test_events_are_read_from_the_stream_and_resumed_after_the_last() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["after"])
        rev = int(asked[-1]) + 1
        event = {"rev": rev, "time": 1.0, "kind": "vm.changed", "subject": "vm-1", "detail": {}}
        return httpx.Response(
            200, text=f": keep-alive\n\nid: {rev}\nevent: vm.changed\ndata: {json.dumps(event)}\n\n"
        )

    stream = client(answer).events(7)
    assert [next(stream).rev, next(stream).rev] == [8, 9]
    assert asked == ["7", "8"]


def test_events_that_are_gone_say_so() -> None:
    gone = Problem(Code.GONE, "no longer kept").document()
    with pytest.raises(Problem) as caught:
        next(client(lambda _: json_answer(gone, 410)).events(7))
    assert caught.value.code is Code.GONE


def test_a_stream_of_limited_time_ends_in_silence() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("silence", request=request)

    assert list(client(answer).events(7, timeout=0.05)) == []


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (httpx.ConnectError("refused"), Code.UNAVAILABLE),
        (httpx.ReadTimeout("slow"), Code.TIMEOUT),
        (httpx.ConnectTimeout("slow"), Code.TIMEOUT),
        (httpx.RemoteProtocolError("closed"), Code.UNAVAILABLE),
    ],
)
def test_every_trouble_of_the_network_is_a_problem_with_a_hint(trouble: Exception, code: Code) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise trouble

    with pytest.raises(Problem) as caught:
        client(answer).call("host.get")
    assert caught.value.code is code
    assert caught.value.hint


def test_a_redirect_is_not_followed_with_the_token() -> None:
    with pytest.raises(Problem, match="302"):
        client(lambda _: httpx.Response(302, headers={"Location": "https://evil/"})).call("host.get")
