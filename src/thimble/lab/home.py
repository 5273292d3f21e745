"""Where each server lives, and which of them run.

    <state>/thimble/lab/<name>/   spec.json      what was asked
                                  process.json   pid, start time, accelerator, when it was powered on
                                  serial.log     every byte of the serial line; serial.sock to talk to it
                                  qmp.sock, qemu.log (QEMU's own words), diskN.raw, esp.raw, vars.fd

An entry whose process is gone is stale: it is listed as off and may be powered on again, or removed.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem
from thimble.lab.spec import ServerSpec
from thimble.sys import files, process


class RunningServer(msgspec.Struct, frozen=True, kw_only=True):
    """The process of a powered-on server."""

    who: process.Identity
    accel: str
    powered_on: float


class ServerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `lab list`."""

    name: str
    running: bool
    pid: int
    accel: str
    cpus: int
    memory_mib: int
    firmware: str
    home: str


def root() -> Path:
    """$XDG_STATE_HOME/thimble/lab, else ~/.local/state/thimble/lab."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local/state").absolute() / "thimble/lab"


def of(name: str) -> Path:
    return root() / name


def read_spec(home: Path) -> ServerSpec:
    try:
        return msgspec.json.decode((home / "spec.json").read_bytes(), type=ServerSpec)
    except FileNotFoundError as error:
        raise Problem(
            Code.NOT_FOUND, f"there is no virtual server {home.name!r}", hint="`thimble lab list` shows them"
        ) from error


def write_spec(home: Path, spec: ServerSpec) -> None:
    home.mkdir(parents=True, exist_ok=True)
    files.write_atomic(home / "spec.json", msgspec.json.encode(spec), durable=False)


def read_running(home: Path) -> RunningServer | None:
    """The process if it is alive; None for a stale entry."""
    try:
        found = msgspec.json.decode((home / "process.json").read_bytes(), type=RunningServer)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return found if process.alive(found.who) else None


def write_running(home: Path, running: RunningServer) -> None:
    files.write_atomic(home / "process.json", msgspec.json.encode(running), durable=False)


def entries() -> list[ServerSummary]:
    """All servers, running or not."""
    found = []
    for path in sorted(root().glob("*/spec.json")):
        home = path.parent
        spec, running = read_spec(home), read_running(home)
        found.append(
            ServerSummary(
                name=spec.name,
                running=running is not None,
                pid=running.who.pid if running else 0,
                accel=running.accel if running else "",
                cpus=spec.cpus,
                memory_mib=spec.memory_mib,
                firmware=spec.firmware,
                home=str(home),
            )
        )
    return found


def remove(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)


def connect(path: Path, *, timeout: float | None) -> socket.socket:
    """A connection to a Unix socket, however long its path (an address has 107 bytes at most)."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        wire.settimeout(timeout)
        try:
            wire.connect(f"/proc/self/fd/{folder}/{path.name}")
        except OSError as error:
            wire.close()
            raise Problem(
                Code.UNAVAILABLE, f"{path.name} of server {path.parent.name!r}: {error.strerror}"
            ) from error
        return wire
    finally:
        os.close(folder)
