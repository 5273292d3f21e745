"""Run a test in a network of its own: a forked child with fresh network and mount namespaces.

So real bridges, rules and daemons are made without touching the machine, and all vanish with the child.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

_NEWNS = 0x00020000
_NEWNET = 0x40000000
_REC_PRIVATE = 0x4000 | 0x40000

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def own_network(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Decorator for coroutine tests. A failure in the child is printed and fails the test."""

    @needs_root
    @functools.wraps(test)
    def outer(*args: object, **named: object) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(90)  # what is cancelled after 60 s and does not end
            code = 1
            try:
                with ExitStack() as ending:
                    ending.callback(_end_all)
                    _enter()
                    asyncio.run(asyncio.wait_for(test(*args, **named), 60))  # type: ignore[arg-type]
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:  # whatever happened: the child never goes on as a second pytest
                sys.stderr.flush()
                sys.stdout.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert status == 0, "the test failed in its own network; see above"

    return outer


def _enter() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    Path("/run/netns").mkdir(parents=True, exist_ok=True)
    for result in (
        libc.unshare(_NEWNET | _NEWNS),
        libc.mount(b"none", b"/", None, _REC_PRIVATE, None),
        libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None),
        libc.mount(b"tmpfs", b"/run/netns", b"tmpfs", 0, None),
    ):
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    ip("link", "set", "lo", "up")


def _end_all() -> None:
    """Whatever a failed test left running in its network."""
    mine = Path("/proc/self/ns/net").readlink()
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        with suppress(OSError):
            pid = int(path.parts[2])
            if pid != os.getpid() and path.readlink() == mine:
                os.kill(pid, signal.SIGKILL)


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def inside(namespace: str, *argv: str, timeout: float = 30, check: bool = True) -> str:
    """Run a program in a network namespace made by `ip netns add`; "" is the host's."""
    prefix = ["ip", "netns", "exec", namespace] if namespace else []
    done = subprocess.run([*prefix, *argv], capture_output=True, text=True, timeout=timeout)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def machine(name: str, bridge: str = "", mac: str = "", address: str = "") -> None:
    """A machine on a wire: a namespace with `eth0`, its other end in `bridge` or left as `to-NAME`."""
    ip("netns", "add", name)
    ip("link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
    if bridge:
        ip("link", "set", f"to-{name}", "master", bridge)
    ip("link", "set", f"to-{name}", "up")
    for words in (
        ["link", "set", "lo", "up"],
        ["link", "set", "eth0", *(["address", mac] if mac else []), "up"],
        *([["address", "add", address, "dev", "eth0"]] if address else []),
    ):
        ip("-n", name, *words)


_SERVER = """
import socket, sys
s = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
while True:
    c, peer = s.accept()
    c.sendall(("%s sees %s" % (sys.argv[2], peer[0])).encode())
    c.close()
"""

_CLIENT = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
print(s.makefile().read())
"""


def serve(namespace: str, port: int) -> subprocess.Popen[str]:
    """A TCP server that tells whom it sees; in the namespace "" it is the host's."""
    prefix = ["ip", "netns", "exec", namespace] if namespace else []
    argv = [*prefix, sys.executable, "-IS", "-c", _SERVER, str(port), namespace]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server


def ask(namespace: str, address: str, port: int, *, timeout: float = 5) -> str:
    """What the server there says; empty when there is no way to it."""
    argv = [sys.executable, "-IS", "-c", _CLIENT, address, str(port), str(timeout)]
    return inside(namespace, *argv, check=False).strip().split("\n")[-1].replace("Traceback", "")
