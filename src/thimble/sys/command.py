"""Run other programs to their end. No shell, ever; a timeout, always."""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import subprocess
from collections.abc import Callable
from contextlib import suppress

import msgspec

from thimble.core.problem import Code, Problem
from thimble.sys import log

#: Seconds a killed program may take to be gone.
KILL_S = 5.0


class Result(msgspec.Struct, frozen=True):
    """What a finished program left."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def last_words(self) -> str:
        """The last line of its complaint, at most 300 characters."""
        lines = (self.stderr or self.stdout).decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"exit code {self.code}"


async def run(
    argv: list[str],
    *,
    timeout: float = 30.0,
    stdin: bytes | None = None,
    check: bool = True,
    env: dict[str, str] | None = None,
    fds: tuple[int, ...] = (),
    enter: Callable[[], None] | None = None,
) -> Result:
    """Run `argv` and wait at most `timeout` seconds; a cancelled caller kills the program. It inherits `fds`;
    `enter` is called in the child (see `sys.confine`).

    Raises `Problem`: UNSUPPORTED when there is no such program, TIMEOUT, and FAILED on a non-zero exit
    if `check`.
    """
    child = await _start(argv, stdin=stdin is not None, env=env, fds=fds, enter=enter)
    try:
        out, err = await asyncio.wait_for(child.communicate(stdin), timeout)
    except TimeoutError as error:
        raise Problem(Code.TIMEOUT, f"{argv[0]} did not end within {timeout:.0f} s") from error
    finally:
        await _end(child, argv[0])
    assert child.returncode is not None
    result = Result(child.returncode, out, err)
    if check and result.code:
        raise Problem(Code.FAILED, f"{argv[0]}: {result.last_words}")
    return result


async def _start(
    argv: list[str],
    *,
    stdin: bool = False,
    env: dict[str, str] | None,
    fds: tuple[int, ...],
    enter: Callable[[], None] | None,
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            start_new_session=True,
            pass_fds=fds,
            preexec_fn=enter,
        )
    except FileNotFoundError as error:
        raise Problem(
            Code.UNSUPPORTED,
            f"the program {argv[0]} is missing",
            hint="On a host of your own, install it; in Thimble's image this is a bug.",
        ) from error
    except (OSError, subprocess.SubprocessError) as error:
        raise Problem(Code.FAILED, f"cannot run {argv[0]}: {getattr(error, 'strerror', error)}") from error


async def _end(child: asyncio.subprocess.Process, program: str) -> None:
    """Kill it if it still runs. One that the kernel holds on to (a dead disk) ends when it will."""
    if child.returncode is not None:
        return
    with suppress(ProcessLookupError):
        child.kill()
    try:
        await asyncio.wait_for(child.wait(), KILL_S)
    except TimeoutError:
        log.say(f"{program} (process {child.pid}) cannot be killed now: a device does not answer it")


async def watch(
    argv: list[str],
    heard: Callable[[bytes], None],
    *,
    timeout: float = 86400.0,
    env: dict[str, str] | None = None,
    fds: tuple[int, ...] = (),
    enter: Callable[[], None] | None = None,
) -> None:
    """Run `argv` to its end and call `heard` with its standard output as it comes.

    A cancelled caller kills the program. Raises `Problem` as `run` does; its code is NO_SPACE when that is
    what the program complains about.
    """
    child = await _start(argv, env=env, fds=fds, enter=enter)
    assert child.stdout is not None and child.stderr is not None
    complaint = asyncio.ensure_future(child.stderr.read())
    try:
        async with asyncio.timeout(timeout):
            while piece := await child.stdout.read(4096):
                heard(piece)
            err = await complaint
            await child.wait()
    except TimeoutError as error:
        raise Problem(Code.TIMEOUT, f"{argv[0]} did not end within {timeout:.0f} s") from error
    finally:
        complaint.cancel()
        await _end(child, argv[0])
    if child.returncode:
        words = Result(child.returncode, b"", err).last_words
        full = b"No space left" in err or b"Disk quota exceeded" in err
        raise Problem(Code.NO_SPACE if full else Code.FAILED, f"{argv[0]}: {words}")
