"""The list of 200 VMs by the API on plain hardware: a hosted agent on this machine, no virtual server.

The peer is the least the same HTTP server can do: TLS, one connection, as long an answer, from memory.
Both are asked in turns over one open connection each.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from benchmarks.context import Context
from benchmarks.inside.api import Api
from benchmarks.promise import Bound, Promised, Row
from thimble.core.problem import Code, Problem
from thimble.image import toolbox

NAME = "list"
TITLE = "list of 200 VMs by the API, on this machine"
COUNT = 200
ASKED = 50
WARM = 5
PASSWORD = "bench-bench-bench"
PROJECT = Path(__file__).resolve().parent.parent


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the isolated half measured; seconds and bytes."""

    ours: list[float]
    theirs: list[float]
    defined: float
    size: int


def measure(context: Context) -> list[Row]:
    """All of it in namespaces of its own: a hosted agent makes switches, and they must not stay here."""
    argv = [*_alone(), sys.executable, "-m", "benchmarks.listing"]
    done = subprocess.run(argv, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise Problem(
            Code.FAILED, "the agent on this machine could not be measured", hint="see the lines above"
        )
    found = msgspec.json.decode(done.stdout, type=Found)
    context.say(f"defined {COUNT} VMs in {found.defined:.1f} s")
    return rows(found)


def _alone() -> list[str]:
    """Words that put a command into namespaces ending with it; without root an agent makes no switches."""
    if os.geteuid() != 0:
        return []
    return ["unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child"]


def isolated() -> Found:
    """Define 200, then ask both in turns."""
    if os.geteuid() == 0:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="thimble-bench.") as name, ExitStack() as stack:
        scratch = Path(name)
        port = stack.enter_context(_agent(scratch))
        agent = Api(PASSWORD, port=port)
        began = time.monotonic()
        for number in range(COUNT):
            agent.task("POST", "/vms", {"name": f"vm{number:03}"})
        defined = time.monotonic() - began
        size = len(agent.ask("GET", "/vms"))
        least = Api("", port=stack.enter_context(minimal_peer(scratch, size)), sign_in=False)
        ours, theirs = _ask_in_turns(agent, least)
    return Found(ours=ours, theirs=theirs, defined=defined, size=size)


def rows(found: Found) -> list[Row]:
    """Pure."""
    return [
        Row(
            promise=NAME,
            what=f"GET /vms with {COUNT} VMs",
            unit="s",
            ours=tuple(found.ours),
            peer="asyncio answering from memory",
            theirs=tuple(found.theirs),
            promised=Promised(bound=Bound.AT_MOST, limit=0.020),
            note=f"{found.size} bytes; over one open TLS connection",
        ),
        Row(promise=NAME, what=f"define {COUNT} VMs, one after the other", unit="s", ours=(found.defined,)),
    ]


def _ask_in_turns(agent: Api, least: Api) -> tuple[list[float], list[float]]:
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(WARM + ASKED):
        for api, into in ((agent, ours), (least, theirs)):
            began = time.monotonic()
            api.ask("GET", "/vms")
            if number >= WARM:
                into.append(time.monotonic() - began)
    return ours, theirs


@contextmanager
def _agent(scratch: Path) -> Iterator[int]:
    """A hosted agent of its own; its port."""
    port = _free_port()
    word = scratch / "password"
    word.write_text(PASSWORD + "\n")
    box = toolbox.ensure()
    argv = [sys.executable, "-m", "thimble.app"]
    argv += ["--hosted", "yes"]
    argv += ["--state", str(scratch / "state")]
    argv += ["--run", str(scratch / "run")]
    argv += ["--listen", f"127.0.0.1:{port}"]
    argv += ["--qemu-dir", str(box.wrappers)]
    argv += ["--share", str(box.path("usr/share"))]
    argv += ["--password-file", str(word)]
    with _running(argv, {}, port, scratch / "agent.log"):
        yield port


@contextmanager
def minimal_peer(scratch: Path, size: int) -> Iterator[int]:
    """The peer; its port. It gets a certificate of the same kind."""
    key, certificate = scratch / "key.pem", scratch / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-subj", "/CN=bench", "-days", "1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    port = _free_port()
    argv = [sys.executable, "-m", "benchmarks.minimal", str(port), str(size), str(key), str(certificate)]
    with _running(argv, {}, port, scratch / "minimal.log"):
        yield port


@contextmanager
def _running(
    argv: list[str], more: dict[str, str], port: int, log: Path, timeout: float = 60
) -> Iterator[None]:
    """The program, from when its port answers to the end of the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv, cwd=PROJECT, env={**os.environ, **more}, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + timeout
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Problem(
                    Code.FAILED, f"{argv[2]} did not start", hint=log.read_text(errors="replace")[-600:]
                )
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(isolated()))
