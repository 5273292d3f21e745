"""The log: read from its rings, filtered, followed over a turn of the ring, sent to a syslog server."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from thimble.contract.hardware import LogLevel, LogLine
from thimble.core.problem import Code, Problem
from thimble.host import loglines, syslog
from thimble.host.journal import Cursor, Logbook
from thimble.host.loglines import Wanted
from thimble.host.rules import Target, syslog_reasons, syslog_target

INFO, WARNING, ERROR = LogLevel.INFO, LogLevel.WARNING, LogLevel.ERROR


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.345 boot: ready in 12.3 s", (1012.345, INFO, "boot", "ready in 12.3 s")),
        ("1.000 agent: 2026-01-01T00:00:00Z warning: low", (1001.0, WARNING, "agent", "warning: low")),
        ("1.000 chronyd: Selected source 10.0.0.1", (1001.0, INFO, "chronyd", "Selected source 10.0.0.1")),
        ("1.000 agent: OSError: x", (1001.0, ERROR, "agent", "OSError: x")),
        ("1.000 boot: a\x1b[31mred", (1001.0, INFO, "boot", "a [31mred")),
    ],
)  # fmt: skip
def test_a_line_of_the_ring_is_read(text: str, expected: tuple[float, LogLevel, str, str]) -> None:
    line = loglines.of_ring(text, 1000.0)
    assert line is not None and (line.time, line.level, line.source, line.text) == expected


@pytest.mark.parametrize("text", ["", "x", "12 boot: no fraction", "1.0 boot no colon"])
def test_what_is_no_line_is_passed_over(text: str) -> None:
    assert loglines.of_ring(text, 0.0) is None


def test_the_kernels_records_have_levels_and_programs_are_left_out() -> None:
    line = loglines.of_kernel(b"3,812,5250000,-;ata1: failed\n SUBSYSTEM=scsi\n", 1000.0)
    assert line == LogLine(time=1005.25, level=ERROR, source="kernel", text="ata1: failed")
    assert loglines.of_kernel(b"14,813,5250001,-;thimble: ready\n", 1000.0) is None
    assert loglines.of_kernel(b"nonsense", 1000.0) is None


def line(at: float, level: LogLevel = INFO, source: str = "boot") -> LogLine:
    return LogLine(time=at, level=level, source=source, text="x")


def test_lines_are_chosen_by_level_source_and_time() -> None:
    assert Wanted(level=WARNING).has(line(1, ERROR)) and not Wanted(level=WARNING).has(line(1))
    assert not Wanted(sources=frozenset(("kernel",))).has(line(1))
    assert Wanted(since=1.0).has(line(1)) and not Wanted(since=1.1).has(line(1))


@pytest.mark.parametrize(
    "query", [{"lines": "-1"}, {"lines": "10001"}, {"level": "x"}, {"since": "nan"}, {"since": "y"}]
)
def test_a_wrong_question_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(Problem) as problem:
        loglines.wanted(query)
    assert problem.value.code is Code.INVALID and problem.value.where == f"?{next(iter(query))}"


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text for line in lines]


def add(run: Path, *words: str) -> None:
    with (run / "log").open("a") as file:
        file.writelines(f"{n}.000 boot: {word}\n" for n, word in enumerate(words))


def test_the_last_lines_of_both_halves_of_the_ring_are_told(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text("1.000 boot: old\n2.000 boot: older\n")
    (tmp_path / "log").write_text("3.000 boot: new\n")
    book = Logbook(tmp_path, kernel=None)
    assert texts(book.lines(Wanted())) == ["old", "older", "new"]
    assert texts(book.lines(Wanted(lines=1))) == ["new"]
    assert book.lines(Wanted(lines=0)) == []


def test_a_cursor_misses_nothing_when_the_ring_turns(tmp_path: Path) -> None:
    add(tmp_path, "one")
    cursor = Logbook(tmp_path, kernel=None).cursor()
    assert texts(cursor.read()) == ["one"]
    assert cursor.read() == []
    add(tmp_path, "two")
    (tmp_path / "log").rename(tmp_path / "log.1")
    add(tmp_path, "three")
    assert texts(cursor.read()) == ["two", "three"]
    with (tmp_path / "log").open("a") as file:
        file.write("9.000 boot: ha")
    assert cursor.read() == []
    with (tmp_path / "log").open("a") as file:
        file.write("lf\n")
    assert texts(cursor.read()) == ["half"]
    cursor.close()


def test_following_begins_with_the_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thimble.host.journal.PAUSE_S", 0.01)
    add(tmp_path, "one", "two", "three")

    async def work() -> None:
        following = Logbook(tmp_path, kernel=None).follow(Wanted(lines=2))
        assert texts(await anext(following)) == ["two", "three"]
        upcoming = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        add(tmp_path, "four")
        assert texts(await asyncio.wait_for(upcoming, 10)) == ["four"]
        await following.aclose()  # type: ignore[attr-defined]

    asyncio.run(work())


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("udp://10.0.0.9", Target(protocol="udp", host="10.0.0.9", port=514)),
        ("tcp://[2001:db8::9]:6514", Target(protocol="tcp", host="2001:db8::9", port=6514)),
        ("tcp://[2001:db8::9]", Target(protocol="tcp", host="2001:db8::9", port=514)),
        ("udp://logs.example:1514", Target(protocol="udp", host="logs.example", port=1514)),
    ],
)
def test_a_target_is_read_and_written(text: str, target: Target) -> None:
    found = syslog_target(text)
    assert found == target and syslog_target(str(found)) == target and not syslog_reasons(text, "$.syslog")


@pytest.mark.parametrize(
    "text",
    ["10.0.0.9", "udp:/10.0.0.9", "tls://a", "udp://", "udp://a:0", "udp://a:70000", "udp://[::1", "udp://[::1]x",
     "udp://u@h", "tcp://a/b", "udp://a:١"],
)  # fmt: skip
def test_what_is_no_target_is_refused(text: str) -> None:
    assert syslog_target(text) is None
    assert syslog_reasons(text, "$.syslog")[0].path == "$.syslog"


def test_a_line_is_what_rfc_5424_wants() -> None:
    entry = LogLine(time=1_700_000_000.5, level=WARNING, source="kernel", text="disk ä")
    assert syslog.line(entry, "my host") == (
        "<4>1 2023-11-14T22:13:20.500Z myhost kernel - kernel - disk ä".encode()
    )
    entry = LogLine(time=0.0, level=INFO, source="boot", text="x" * 5000)
    assert syslog.line(entry, "ö").startswith(b"<30>1 1970-01-01T00:00:00.000Z - thimble - boot - xxx")
    assert len(syslog.line(entry, "h")) == 2048


def test_a_reader_that_is_closed_while_it_reads_keeps_its_file_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its descriptor would be somebody else's file by the time it is read from."""
    (tmp_path / "log").write_text("")
    (tmp_path / "kmsg").write_text("")
    cursor = Cursor(tmp_path, tmp_path / "kmsg")
    descriptor = cursor._kernel
    reading, go_on = threading.Event(), threading.Event()

    def slowly(epoch: float) -> list[LogLine]:
        reading.set()
        go_on.wait(10)
        os.fstat(descriptor)
        return []

    monkeypatch.setattr(cursor, "_read_kernel", slowly)
    thread = threading.Thread(target=cursor.read)
    thread.start()
    reading.wait(10)
    cursor.close()
    os.fstat(descriptor)
    go_on.set()
    thread.join(10)
    with pytest.raises(OSError):
        os.fstat(descriptor)
    assert cursor.read() == []
