"""Processes that outlive us: started detached, named so that a reused pid is never mistaken for them.

A process is (pid, start time in clock ticks since boot, from field 22 of `/proc/PID/stat`, proc(5)).
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem


class Identity(msgspec.Struct, frozen=True):
    """A process that cannot be confused with a later one of the same pid."""

    pid: int
    start: int


def identify(pid: int) -> Identity | None:
    """The identity of a live `pid`; None when there is none, or only its zombie."""
    state, who = _look(pid)
    return None if state in (b"Z", b"X") else who


def _look(pid: int) -> tuple[bytes, Identity | None]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return b"", None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return fields[0], Identity(pid, int(fields[19]))


def alive(who: Identity) -> bool:
    """Is it still that process, and running?"""
    return identify(who.pid) == who


def spawn(
    argv: list[str],
    *,
    output: Path,
    uid: int | None = None,
    gid: int | None = None,
    groups: list[int] | None = None,
    fds: tuple[int, ...] = (),
    env: dict[str, str] | None = None,
    cwd: str = "/",
) -> Identity:
    """Start `argv` detached in an own session, stdout and stderr appended to `output`, only `fds` inherited.

    Raises `Problem` UNSUPPORTED when the program is missing, FAILED when it cannot be started.
    """
    with open(output, "ab", buffering=0) as log:
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=uid,
                group=gid,
                extra_groups=groups if groups is not None else ([] if uid is not None else None),
                pass_fds=fds,
                env=env,
                cwd=cwd,
                start_new_session=True,
                umask=0o077,
            )
        except FileNotFoundError as error:
            raise Problem(Code.UNSUPPORTED, f"the program {argv[0]} is missing") from error
        except (OSError, subprocess.SubprocessError) as error:
            raise Problem(Code.FAILED, f"cannot start {argv[0]}: {error}") from error
    with suppress(OSError):  # in the image the agent is protected from the OOM killer; what it starts is not
        Path(f"/proc/{child.pid}/oom_score_adj").write_text("0")
    child.returncode = 0  # we watch it by pidfd; keeps subprocess from waiting for it behind our back
    who = identify(child.pid)
    return who if who is not None else Identity(child.pid, 0)


async def exited(who: Identity) -> None:
    """Return when `who` has ended; reap it if it is our child."""
    try:
        descriptor = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return
    try:
        # not `alive`: a first thread may be a zombie while others still hold the files
        if _look(who.pid)[1] != who:
            return
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def readable() -> None:
            if not ended.done():
                ended.set_result(None)

        loop.add_reader(descriptor, readable)
        try:
            await ended
        finally:
            loop.remove_reader(descriptor)
    finally:
        os.close(descriptor)
        reap(who)


def reap(who: Identity) -> None:
    """Take the exit status of a dead child; nothing when it is not dead or not ours."""
    with suppress(ChildProcessError):
        os.waitpid(who.pid, os.WNOHANG)


def send(who: Identity, number: signal.Signals) -> None:
    """Signal it, unless it is gone. The pidfd makes sure that it is still that process."""
    try:
        descriptor = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return
    try:
        if alive(who):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def memory(who: Identity) -> int:
    """Bytes of RAM and swap it uses (proc(5), status); 0 when it is gone."""
    try:
        lines = Path(f"/proc/{who.pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS:", "VmSwap:")))


def usable_by_others(*paths: Path) -> bool:
    """May any user read them, and go through all directories above?"""
    try:
        return all(
            part.stat().st_mode & 0o001
            for path in paths
            for part in (path.resolve(), *path.resolve().parents)
        )
    except OSError:
        return False
