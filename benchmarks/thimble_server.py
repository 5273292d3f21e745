"""Thimble in the virtual server, and a measurement of ours running inside it.

Nothing in the product changes for that: one more cpio behind the image's initrd brings `inside/` along and
`rdinit=/bench.py` starts it as first program; it forks, becomes Thimble's own /init, and its child stays as
root beside it, taking orders on a TCP port (see inside/channel.py).
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.inside.channel import PORT
from benchmarks.machine import System
from thimble.core.problem import Code, Problem
from thimble.image import cpio
from thimble.lab.server import LabServer

READY = b"thimble: ready"
SILENT_S = 400.0
PASSWORD = re.compile(rb"password (\S+)")
MODULES = ("__init__", "api", "byhand", "channel", "idle", "measure", "start")


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A built image: its directory and its default kernel command line."""

    where: Path
    cmdline: str

    def system(self, name: str = "thimble") -> System:
        return System(
            name=name,
            kernel=self.where / "vmlinuz",
            initrd=self.where / "initrd",
            cmdline=self.cmdline,
            ready=READY,
        )


def with_child(
    image: Image, scratch: Path, *, files: Mapping[str, bytes] | None = None, state_disk: bool = False
) -> System:
    """The image with our child in it; `files` come along in /bench.d."""
    initrd = scratch / "initrd"
    initrd.write_bytes(extended((image.where / "initrd").read_bytes(), entries(files or {})))
    plain = image.system("inside")
    return msgspec.structs.replace(
        plain,
        initrd=initrd,
        cmdline=f"{plain.cmdline} rdinit=/bench.py",
        forwards=(PORT,),
        state_disk=state_disk,
    )


def entries(files: Mapping[str, bytes]) -> list[cpio.CpioEntry]:
    """What the kernel unpacks over the image's own files."""
    inside = resources.files("benchmarks.inside")
    found = [cpio.file("bench.py", inside.joinpath("bench.py").read_bytes(), 0o755)]
    found.append(cpio.file("bench.d/benchmarks/__init__.py", b""))
    for name in MODULES:
        text = inside.joinpath(f"{name}.py").read_bytes()
        found.append(cpio.file(f"bench.d/benchmarks/inside/{name}.py", text))
    return [*found, *(cpio.file(f"bench.d/{name}", data) for name, data in files.items())]


def extended(initrd: bytes, more: list[cpio.CpioEntry]) -> bytes:
    """One more archive behind an initrd; the kernel wants each to begin on four bytes."""
    return initrd + bytes(-len(initrd) % 4) + cpio.archive(more)


def password(server: LabServer, timeout: float) -> str:
    """The one made up at first boot and shown on the console."""
    said = server.wait_for(b"password ", timeout=timeout)
    rest = server.wait_for(b"\n", timeout=timeout)
    found = PASSWORD.search(said[-9:] + rest)
    if not found:
        raise Problem(Code.FAILED, "the console showed no password")
    return found[1].decode()


@contextmanager
def orders(server: LabServer, *, timeout: float) -> Iterator[Orders]:
    """The connection to our child in the server."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            link = socket.create_connection(("127.0.0.1", server.forward(PORT)), timeout=timeout)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise Problem(Code.TIMEOUT, f"the child in the server does not answer: {error}") from error
            time.sleep(0.2)
    link.settimeout(SILENT_S)
    with link:
        try:
            yield Orders(link)
        except TimeoutError as error:
            raise Problem(
                Code.TIMEOUT, f"the measurement in the server said nothing for {SILENT_S:.0f} s"
            ) from error


class Orders:
    """Give one order, hear the samples."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._lines = link.makefile("rb")

    def give(self, **what: object) -> Iterator[dict[str, Any]]:
        """Every object the child says until it is done."""
        self._link.sendall(json.dumps(what).encode() + b"\n")
        for line in self._lines:
            said: dict[str, Any] = json.loads(line)
            if said.get("side") == "end":
                return
            if said.get("side") == "failed":
                raise Problem(Code.FAILED, f"the measurement inside the server failed: {said['why']}")
            yield said
        raise Problem(Code.FAILED, "the child in the server hung up in the middle of the measurement")
