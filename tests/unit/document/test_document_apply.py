"""Applying: each verb in turn, what is against it told first, and a failure that says how far it came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from document_host import FRESH, done, replace

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Nothing, Task, TaskState
from thimble.contract.document import Document
from thimble.contract.document_api import DocumentText
from thimble.contract.verbs import BY_NAME, Shape, Started
from thimble.core.lazy import Lazy
from thimble.core.problem import Code, Problem, Reason
from thimble.dispatch.registry import Registry
from thimble.document.facts import Facts
from thimble.document.records import digest
from thimble.document.service import DocumentService
from thimble.document.steps import Ask
from thimble.state.events import Events
from thimble.state.tasks import Tasks

TEXT = (
    'format = 1\n[host]\nname = "rack7"\n[[switch]]\nname = "lan"\nkind = "nat"\n'
    'forwards = [{ port = 80, vm = "web1", to_port = 80 }]\n'
    '[[vm]]\nname = "web1"\nnics = [{ switch = "lan" }]\n'
)


class Host:
    """Services that do on paper what they are asked, and fail where they are told to."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.now: Facts = FRESH
        self.called: list[str] = []
        self.fails: dict[str, Problem] = {}
        self.against: dict[str, tuple[Reason, ...]] = {}
        self.registry = Registry({noun: Noun(self, noun) for noun in ("host", "switch", "vm", "key")})
        self.restart()

    def restart(self) -> None:
        self.tasks = Tasks(Events(base=1, clock=lambda: 1.0), clock=lambda: 1.0, entropy=_entropy())
        sources: Any = Lazy(lambda: self)
        self.document = DocumentService(self.state, sources, self.tasks, durable=False, clock=lambda: 5.0)

    async def facts(self, document: Document | None, last: Document | None = None) -> Facts:
        return replace(self.now, last=last)

    def apply(self, text: str = TEXT, *, dry_run: bool = False) -> Any:
        async def story() -> Task | DryRun:
            call = Call(input=DocumentText(text=text, source="test"), user="ann", dry_run=dry_run)
            answer = await self.document.apply(call)
            if isinstance(answer, DryRun):
                return answer
            return await self.tasks.wait(answer.task.id)

        return asyncio.run(story())

    def get(self) -> Any:
        return asyncio.run(self.document.get(Call(input=None)))


def _entropy() -> Callable[[int], bytes]:
    numbers = iter(range(1, 10_000))
    return lambda count: next(numbers).to_bytes(count, "big")


class Noun:
    def __init__(self, host: Host, noun: str) -> None:
        self._host, self._noun = host, noun

    def __getattr__(self, verb: str) -> Any:
        name = f"{self._noun}.{verb}"

        async def method(call: Call[Any]) -> object:
            host = self._host
            if call.dry_run:
                against = host.against.get(name, ())
                return DryRun(possible=not against, blockers=against)
            host.called.append(name)
            if BY_NAME[name].shape is Shape.TASK:
                return Started(task=host.tasks.start(name, "x", lambda _: self._do(name, call)), subject="x")
            await self._do(name, call)
            return Nothing()

        return method

    async def _do(self, name: str, call: Call[Any]) -> None:
        if problem := self._host.fails.get(name):
            raise problem
        self._host.now = done(Ask(verb=name, path=call.path, input=call.input), self._host.now)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_each_verb_is_called_in_turn_and_again_there_is_nothing_to_do(host: Host) -> None:
    task = host.apply()
    assert task.state is TaskState.DONE and task.owner == "ann"
    assert host.called == ["host.change", "switch.create", "vm.create", "vm.start", "switch.change"]
    assert host.apply().result == {"note": "it is so already: nothing to do"}
    assert len(host.called) == 5
    state = host.get()
    assert (state.complete, state.source, state.applied, state.changes) == (True, "test", 5.0, ())


def test_a_failure_stops_and_tells_what_was_done_and_what_was_not(host: Host) -> None:
    host.fails["vm.create"] = Problem(Code.NO_SPACE, "local is full", hint="Free some.")
    task = host.apply()
    assert task.state is TaskState.FAILED and task.problem is not None
    assert task.problem.code is Code.NO_SPACE
    assert task.problem.detail == "creates VM web1: local is full"
    assert task.problem.hint == "Free some. Applying again goes on from here."
    assert [reason.message for reason in task.problem.reasons] == [
        "done: renames the host thimble to rack7",
        "done: creates switch lan with a subnet of its own",
        "not done: creates VM web1",
        "not done: starts VM web1",
        "not done: hands tcp port 80 of the host to web1, port 80",
    ]
    state = host.get()
    assert not state.complete and state.changes[0] == "creates VM web1"
    host.fails.clear()
    host.restart()
    assert not host.get().complete, "also for the next agent"
    assert host.apply().result["done"].splitlines()[0] == "creates VM web1"
    assert host.get().complete


def test_what_was_applied_since_the_boot_stays_until_the_document_changes(host: Host) -> None:
    changed = digest(TEXT.replace("rack7", "rack8"))
    assert not host.document.settled(digest(TEXT))
    host.apply()
    assert host.document.settled(digest(TEXT)), "a hand applied it"
    asyncio.run(host.document.settle(TEXT, "stick"))
    host.apply(TEXT.replace("rack7", "rack9"))
    host.restart()
    assert host.document.settled(digest(TEXT)) and not host.document.settled(changed)
    host.fails["vm.delete"] = host.fails["host.change"] = Problem(Code.NO_SPACE, "full")
    host.apply(TEXT.replace("rack7", "rack8"))
    assert host.document.settled(digest(TEXT)), "another one was cut off"
    host.apply(TEXT)
    assert not host.document.settled(digest(TEXT)), "it was itself cut off"


def test_blockers_are_told_with_their_places_and_nothing_happens(host: Host) -> None:
    host.against["vm.create"] = (
        Reason(message="more than there is", code=Code.INVALID, path="$.memory_mib"),
    )
    host.against["host.change"] = (Reason(message="no", code=Code.CONFLICT, path="$.name"),)
    with pytest.raises(Problem) as caught:
        host.apply()
    assert [(one.line, one.column, one.path) for one in caught.value.reasons] == [
        (3, 8, "$.host.name"),
        (8, 1, "$.vm[0].memory_mib"),
    ]
    assert host.called == [] and host.get().sha256 == ""
    assert host.apply(dry_run=True).possible is False


def test_what_another_effect_makes_in_time_is_not_against_it(host: Host) -> None:
    missing = Reason(message="there is no switch 'lan'", code=Code.NOT_FOUND, path="$.nics[0].switch")
    no_vm = Reason(message="no VM 'web1' has an address", code=Code.NOT_FOUND, path="$.forwards[0].vm")
    taken = Reason(message="used by the host itself", code=Code.IN_USE, path="$.forwards[0].port")
    host.against = {"vm.create": (missing,), "switch.create": (no_vm,)}
    assert host.apply(dry_run=True).possible
    host.against["switch.create"] = (no_vm, taken)
    assert [one.message for one in host.apply(dry_run=True).blockers] == ["used by the host itself"]


def test_two_documents_are_not_applied_at_once(host: Host) -> None:
    async def story() -> None:
        call = Call(input=DocumentText(text=TEXT))
        first = await host.document.apply(call)
        assert isinstance(first, Started) and host.document.busy
        with pytest.raises(Problem) as caught:
            await host.document.apply(call)
        assert caught.value.code is Code.CONFLICT and first.task.id in caught.value.detail
        await host.tasks.wait(first.task.id)
        assert not host.document.busy

    asyncio.run(story())


def test_nothing_is_written_when_nothing_changes(host: Host) -> None:
    host.apply()
    before = {path: path.stat().st_mtime_ns for path in host.state.rglob("*.json")}
    assert [path.name for path in before] == ["applied.json"]
    host.apply()
    assert {path: path.stat().st_mtime_ns for path in host.state.rglob("*.json")} == before


def test_the_record_is_roots_alone(host: Host) -> None:
    host.apply()
    assert (host.state / "document" / "applied.json").stat().st_mode & 0o77 == 0
