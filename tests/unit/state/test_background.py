"""What goes on beside requests is heard when it dies, and ended with its owner."""

from __future__ import annotations

import asyncio
import threading

from thimble.state.background import Background
from thimble.state.store import Collection
from thimble.sys import files, log
from thimble.sys.worker import Worker


def test_a_death_is_said_with_its_traceback() -> None:
    async def dies() -> None:
        raise ValueError("out of ideas")

    async def story() -> None:
        background = Background()
        task = background.keep("watch", dies())
        await asyncio.wait([task])
        await asyncio.sleep(0)

    before = log.count()
    asyncio.run(story())
    lines = list(log.ring)[-(log.count() - before) :]
    assert any("watch: ValueError: out of ideas" in line for line in lines)
    assert any("Traceback" in line for line in lines)


def test_closing_ends_all_that_is_kept() -> None:
    async def story() -> bool:
        background = Background()
        task = background.keep("for ever", asyncio.Event().wait())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await background.close()
        return task.cancelled()

    assert asyncio.run(story())


def test_a_worker_keeps_the_order_and_lets_the_loop_go_on() -> None:
    held, seen = threading.Event(), []

    async def story() -> None:
        worker = Worker("test")
        first = asyncio.ensure_future(worker.run(lambda: (held.wait(10), seen.append(1))))
        second = asyncio.ensure_future(worker.run(lambda: seen.append(2)))
        await asyncio.sleep(0)  # the loop is free while the first hangs
        assert not seen
        held.set()
        await asyncio.gather(first, second)

    asyncio.run(asyncio.wait_for(story(), 10))
    assert seen == [1, 2]


def test_commits_to_one_root_come_in_order_and_another_root_does_not_wait(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    held, real = threading.Event(), files.write_atomic

    def slow(path, data, **more):  # type: ignore[no-untyped-def]
        if "dead" in str(path):
            held.wait(10)
        real(path, data, **more)

    monkeypatch.setattr(files, "write_atomic", slow)
    numbers: Collection[int] = Collection(int, noun="number", durable=False)
    numbers.add_root("dead", tmp_path / "dead")
    numbers.add_root("fine", tmp_path / "fine")

    async def story() -> None:
        first = asyncio.ensure_future(numbers.commit("a", 1, root="dead"))
        await asyncio.sleep(0)
        assert (await numbers.commit("b", 2, root="fine")).value == 2
        assert numbers.find("a") is None, "nobody sees what is not durable yet"
        first.cancel()
        second = asyncio.ensure_future(numbers.commit("a", 3, root="dead"))
        held.set()
        assert (await second).rev == 2, "a cancelled caller's commit goes on to its end"

    asyncio.run(asyncio.wait_for(story(), 10))
    assert numbers.get("a").value == 3


def test_two_that_amend_the_same_record_lose_nothing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    names: Collection[list[str]] = Collection(list[str], noun="names", durable=False)
    names.add_root("", tmp_path)

    async def story() -> None:
        await names.commit("a", [])
        await asyncio.gather(*(names.amend("a", lambda old, n=n: [*old, str(n)]) for n in range(5)))
        before = names.get("a").rev
        assert (await names.amend("a", lambda old: old)).rev == before, "the same again is no change"

    asyncio.run(story())
    assert names.get("a").value == ["0", "1", "2", "3", "4"]
