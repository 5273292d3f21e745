"""Run a test in a network of its own: a forked child with fresh network and mount namespaces.

So real bridges, rules and daemons are made without touching the machine, and all vanish with the child.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable

import pytest

_NEWNS = 0x00020000
_NEWNET = 0x40000000
_REC_PRIVATE = 0x4000 | 0x40000

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(name) for name in ("ip", "nft", "dnsmasq")),
    reason="needs root, ip, nft and dnsmasq",
)


def own_network(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Decorator for coroutine tests. A failure in the child is printed and fails the test."""

    @needs_root
    @functools.wraps(test)
    def outer(*args: object, **named: object) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _enter()
                asyncio.run(asyncio.wait_for(test(*args, **named), 60))  # type: ignore[arg-type]
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                sys.stdout.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert status == 0, "the test failed in its own network; see above"

    return outer


def _enter() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for result in (
        libc.unshare(_NEWNET | _NEWNS),
        libc.mount(b"none", b"/", None, _REC_PRIVATE, None),
        libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None),
    ):
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    ip("link", "set", "lo", "up")


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def inside(namespace: str, *argv: str, timeout: float = 30, check: bool = True) -> str:
    """Run a program in a network namespace made by `ip netns add`."""
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *argv], capture_output=True, text=True, timeout=timeout
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
