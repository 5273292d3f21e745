"""What a confined program is, and what it can do."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from thimble.sys import command
from thimble.sys.confine import READERS, Cell, Limits

LIMITS = Limits(memory=1 << 30, cpu_s=5, file_bytes=1 << 16)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def sh(script: str, cell: Cell, *descriptors: int) -> command.Result:
    """By the programs' own paths: their links may lie in a home that only its owner may enter."""
    found = {str(Path(shutil.which(name) or name).resolve().parent) for name in ("cat", "head", "ip")}
    env = {**os.environ, "PATH": os.pathsep.join(found)}
    work = command.run(["/bin/sh", "-c", script], check=False, fds=descriptors, enter=cell.enter, env=env)
    return asyncio.run(work)


def status(cell: Cell) -> dict[str, str]:
    lines = sh("cat /proc/self/status", cell).stdout.decode().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@needs_root
def test_it_is_nobody_and_can_become_nobody_else() -> None:
    one, other = Cell("sh", LIMITS), Cell("sh", LIMITS)
    assert one.uid != other.uid
    found = status(one)
    assert set(found["Uid"].split()) == {str(one.uid)}
    assert set(found["Gid"].split()) == {str(READERS)}
    assert found["Groups"] == ""
    assert (int(found["CapEff"], 16), int(found["CapPrm"], 16), found["NoNewPrivs"]) == (0, 0, "1")


@needs_root
def test_it_has_no_network() -> None:
    devices = sh("cat /proc/self/net/dev", Cell("sh", LIMITS)).stdout.decode().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]


@needs_root
def test_it_reads_and_writes_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    given, secret = tmp_path / "given", tmp_path / "secret"
    for path in (given, secret):
        path.write_text(path.name)
        path.chmod(0o600)
    cell = Cell("sh", LIMITS)
    source, target = os.open(given, os.O_RDONLY), os.open(tmp_path / "new", os.O_RDWR | os.O_CREAT, 0o600)
    cell.may_read(source)
    cell.owns(target)
    script = f"cat /proc/self/fd/{source} > /proc/self/fd/{target}; cat {secret}; cat /proc/self/fd/0"
    told = sh(script, cell, source, target)
    cell.disowns(target)
    assert (tmp_path / "new").read_text() == "given"
    assert told.stdout == b""
    assert (tmp_path / "new").stat().st_uid == 0
    os.close(source)
    os.close(target)


def test_its_files_its_memory_and_its_time_are_bounded(tmp_path: Path) -> None:
    cell = Cell("sh", LIMITS)
    target = os.open(tmp_path / "new", os.O_RDWR | os.O_CREAT, 0o600)
    cell.owns(target)
    sh(f"head -c 200000 /dev/zero > /proc/self/fd/{target}", cell, target)
    assert (tmp_path / "new").stat().st_size == LIMITS.file_bytes
    os.close(target)
    limits = sh("cat /proc/self/limits", cell).stdout.decode().splitlines()
    soft = {line[:26].strip(): line[26:].split()[0] for line in limits[1:]}
    assert soft["Max cpu time"] == "5"
    assert soft["Max address space"] == str(1 << 30)
    assert soft["Max core file size"] == "0"


@needs_root
def test_a_program_in_a_private_directory_runs_as_we_do_within_the_same_limits(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\ngrep NoNewPrivs /proc/self/status\n")
    program.chmod(0o755)
    cell = Cell(str(program), LIMITS)
    assert cell.uid is None
    result = asyncio.run(command.run([str(program)], enter=cell.enter))
    assert result.stdout.split() == [b"NoNewPrivs:", b"1"]
