"""What is asked of the agent inside a guest, over its socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from thimble.sys import unix
from thimble.vm.qemu import qmp


async def heard(where: Path, ask: Callable[[Path], Awaitable[bool]]) -> dict[str, Any]:
    """What a guest agent that answers is told after the greeting."""
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting = json.loads((await reader.readline()).lstrip(b"\xff"))
        writer.write(b'{"return":1}\n' + json.dumps({"return": greeting["arguments"]["id"]}).encode() + b"\n")
        told.set_result(await reader.readline())
        writer.close()

    async with await asyncio.start_unix_server(guest, sock=unix.listen(where / "qga.sock")):
        assert await ask(where / "qga.sock")
        return json.loads(await asyncio.wait_for(told, 10))  # type: ignore[no-any-return]


def test_it_is_asked_to_shut_the_guest_down(tmp_path: Path) -> None:
    assert asyncio.run(heard(tmp_path, qmp.guest_shutdown)) == {"execute": "guest-shutdown"}


def test_it_is_told_the_time_in_nanoseconds(tmp_path: Path) -> None:
    said = asyncio.run(heard(tmp_path, lambda path: qmp.guest_time(path, 1.5)))
    assert said == {"execute": "guest-set-time", "arguments": {"time": 1_500_000_000}}


def test_where_none_answers_nothing_is_waited_for(tmp_path: Path) -> None:
    assert not asyncio.run(qmp.guest_time(tmp_path / "qga.sock", 1.0))
