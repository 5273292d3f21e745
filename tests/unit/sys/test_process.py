"""Processes that outlive us and are never mistaken for others."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from thimble.core.problem import Code, Problem
from thimble.sys import process


def test_a_process_is_known_by_pid_and_start() -> None:
    me = process.identify(os.getpid())
    assert me is not None and process.alive(me)
    assert not process.alive(process.Identity(me.pid, me.start + 1))
    assert process.identify(2**22 + 1) is None


def test_a_name_with_brackets_and_spaces_does_not_confuse(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 ("
    odd.symlink_to("/bin/sleep")
    who = process.spawn([str(odd), "60"], output=tmp_path / "log")
    try:
        assert process.alive(who) and who.start > 0
    finally:
        asyncio.run(_end(who))


def test_a_spawned_process_is_detached_and_has_only_its_descriptors(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.set_inheritable(read, True)
    script = "echo words; ls /proc/self/fd >&2; exec sleep 60"
    who = process.spawn(
        ["sh", "-c", script], output=tmp_path / "log", fds=(write,), env={"PATH": os.environ["PATH"]}
    )
    try:
        assert os.getsid(who.pid) == who.pid
        fds = {path.name for path in Path(f"/proc/{who.pid}/fd").iterdir()}
        assert str(write) in fds and str(read) not in fds
        assert Path(f"/proc/{who.pid}/cwd").readlink() == Path("/")
    finally:
        os.close(read)
        os.close(write)
        asyncio.run(_end(who))


def test_output_is_appended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"before\n")
    asyncio.run(process.exited(process.spawn(["sh", "-c", "echo one; echo two >&2"], output=log)))
    assert log.read_bytes() == b"before\none\ntwo\n"


def test_what_cannot_be_started_is_a_problem(tmp_path: Path) -> None:
    for argv, code in ((["no-such-program"], Code.UNSUPPORTED), ([str(tmp_path)], Code.FAILED)):
        with pytest.raises(Problem) as caught:
            process.spawn(argv, output=tmp_path / "log")
        assert caught.value.code is code


def test_the_end_is_noticed_and_leaves_no_zombie(tmp_path: Path) -> None:
    async def story() -> None:
        who = process.spawn(["sleep", "60"], output=tmp_path / "log")
        waiting = [asyncio.ensure_future(process.exited(who)) for _ in range(2)]
        await asyncio.sleep(0)
        process.send(who, signal.SIGKILL)
        await asyncio.gather(*waiting)
        assert not process.alive(who) and not Path(f"/proc/{who.pid}").exists()
        await process.exited(who)
        process.send(who, signal.SIGKILL)

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_later_process_of_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    async def story() -> None:
        who = process.spawn(["sleep", "60"], output=tmp_path / "log")
        former = process.Identity(who.pid, who.start - 1)
        await process.exited(former)
        process.send(former, signal.SIGKILL)
        assert process.alive(who)
        await _end(who)

    asyncio.run(asyncio.wait_for(story(), 10))


async def _end(who: process.Identity) -> None:
    process.send(who, signal.SIGKILL)
    await process.exited(who)
