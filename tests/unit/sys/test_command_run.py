"""Other programs, run to their end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from thimble.core.problem import Code, Problem
from thimble.sys import command, log


def run(argv: list[str], **more: Any) -> command.Result:
    return asyncio.run(command.run(argv, **more))


def code(argv: list[str], **more: Any) -> Code:
    with pytest.raises(Problem) as caught:
        run(argv, **more)
    return caught.value.code


def test_output_and_exit_code_come_back() -> None:
    result = run(["sh", "-c", "cat; echo bad >&2; exit 3"], stdin=b"in", check=False)
    assert (result.code, result.stdout, result.stderr, result.last_words) == (3, b"in", b"bad\n", "bad")


def test_a_failure_says_the_programs_last_words() -> None:
    with pytest.raises(Problem, match="sh: second"):
        run(["sh", "-c", "echo first >&2; echo second >&2; exit 1"])


def test_words_that_are_no_text_do_no_harm() -> None:
    assert run(["sh", "-c", r"printf '\377\376' >&2; exit 1"], check=False).last_words == "��"
    assert run(["false"], check=False).last_words == "exit code 1"


def test_a_program_that_is_missing_or_cannot_run_is_a_problem(tmp_path: Path) -> None:
    assert code(["no-such-program"]) is Code.UNSUPPORTED
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    assert code([str(plain)]) is Code.FAILED


def test_one_that_does_not_end_is_killed() -> None:
    assert code(["sleep", "60"], timeout=0.05) is Code.TIMEOUT


def test_a_cancelled_caller_kills_the_program(tmp_path: Path) -> None:
    async def story() -> None:
        note = tmp_path / "pid"
        job = asyncio.ensure_future(
            command.run(["sh", "-c", f"echo $$ > {note}.new; mv {note}.new {note}; exec sleep 60"])
        )
        while not note.exists():
            await asyncio.sleep(0.005)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert not Path(f"/proc/{note.read_text().strip()}").exists()

    asyncio.run(story())


def test_a_program_that_does_not_read_its_input_is_no_failure() -> None:
    assert run(["true"], stdin=b"x" * 1_000_000).code == 0


def test_watching_hears_the_output_as_it_comes() -> None:
    heard: list[bytes] = []
    asyncio.run(command.watch(["sh", "-c", "echo one; echo two"], heard.append))
    assert b"".join(heard) == b"one\ntwo\n"
    with pytest.raises(Problem) as caught:
        asyncio.run(command.watch(["sh", "-c", "echo No space left on device >&2; exit 1"], heard.append))
    assert caught.value.code is Code.NO_SPACE
    with pytest.raises(Problem) as caught:
        asyncio.run(command.watch(["sleep", "60"], heard.append, timeout=0.05))
    assert caught.value.code is Code.TIMEOUT


@pytest.mark.parametrize("way", ["run", "watch"])
def test_a_program_that_cannot_be_killed_is_not_waited_for(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose disk does not answer."""
    survivors: list[asyncio.subprocess.Process] = []
    monkeypatch.setattr(command, "KILL_S", 0.1)
    monkeypatch.setattr(asyncio.subprocess.Process, "kill", lambda child: survivors.append(child))

    async def scenario() -> None:
        with pytest.raises(Problem) as caught:
            if way == "run":
                await command.run(["sleep", "2"], timeout=0.1)
            else:
                await command.watch(["sleep", "2"], lambda _: None, timeout=0.1)
        assert caught.value.code is Code.TIMEOUT
        assert survivors[0].returncode is None
        await survivors[0].wait()

    asyncio.run(scenario())
    assert any("sleep" in line and "cannot be killed" in line for line in log.ring)
