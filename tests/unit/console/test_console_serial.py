from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from thimble.console import serial
from thimble.console.serial import Consoles, Session, read_log
from thimble.core.problem import Code, Problem


class FakeQemu:
    """A serial port as QEMU's chardev socket behaves: one client, and a log of everything."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "serial.sock"
        self.log = directory / "serial.log"
        self.typed = bytearray()
        self.writer: asyncio.StreamWriter | None = None
        self.connections = 0
        self._connected = asyncio.Event()
        self._heard = asyncio.Event()

    async def __aenter__(self) -> FakeQemu:
        self._server = await asyncio.start_unix_server(self._client, str(self.socket))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang_up()
        self._server.close()
        self.socket.unlink(missing_ok=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.connections += 1
        self._connected.set()
        while data := await reader.read(4096):
            self.typed += data
            self._heard.set()

    async def say(self, data: bytes) -> None:
        await self.connected()
        assert self.writer is not None
        self.note(data)
        self.writer.write(data)
        await self.writer.drain()

    def note(self, data: bytes) -> None:
        """To the log only, as when nobody is connected."""
        with open(self.log, "ab") as log:
            log.write(data)

    async def connected(self) -> None:
        await self._connected.wait()

    async def hears(self, data: bytes) -> None:
        while data not in self.typed:
            self._heard.clear()
            await self._heard.wait()

    def hang_up(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
        self._connected.clear()


def scenario(test: Callable[[Path], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        asyncio.run(asyncio.wait_for(test(tmp_path), 20))

    run.__name__ = test.__name__
    return run


async def see(session: Session, wanted: bytes) -> bytes:
    seen = b""
    async for data in session:
        seen += data
        if wanted in seen:
            return seen
    raise AssertionError(f"ended ({session.why}) after {seen[-200:]!r}")


@scenario
async def test_a_late_viewer_sees_what_was_said_before(tmp_path: Path) -> None:
    consoles = Consoles()
    async with FakeQemu(tmp_path) as qemu:
        await consoles.attach("vm-1", qemu.socket)
        early = await consoles.session("vm-1")
        await qemu.say(b"Debian GNU/Linux 13\r\n\r\nweb1 login: ")
        await see(early, b"login: ")
        late = await consoles.session("vm-1")
        assert await see(late, b"login: ") == b"Debian GNU/Linux 13\r\n\r\nweb1 login: "
        assert consoles.tail("vm-1").endswith(b"login: ")
        await consoles.close()


@scenario
async def test_several_viewers_see_the_same_and_any_of_them_types(tmp_path: Path) -> None:
    consoles = Consoles()
    async with FakeQemu(tmp_path) as qemu:
        await consoles.attach("vm-1", qemu.socket)
        one, two = await consoles.session("vm-1"), await consoles.session("vm-1")
        await two.write(b"root\r")
        await qemu.hears(b"root\r")
        await qemu.say(b"Password: ")
        assert await see(one, b"Password: ") == await see(two, b"Password: ")
        await consoles.close()


@scenario
async def test_a_slow_viewer_is_dropped_and_the_others_go_on(tmp_path: Path) -> None:
    consoles = Consoles()
    async with FakeQemu(tmp_path) as qemu:
        await consoles.attach("vm-1", qemu.socket)
        slow, quick = await consoles.session("vm-1"), await consoles.session("vm-1")
        reading = asyncio.create_task(see(quick, b"THE END"))
        for _ in range(serial.QUEUE_MAX // 4096 + 8):
            await qemu.say(b"x" * 4096)
            await asyncio.sleep(0)
        await qemu.say(b"THE END")
        assert (await reading).endswith(b"THE END")
        assert [data async for data in slow] == []
        assert "too slow" in slow.why
        with pytest.raises(Problem):
            await slow.write(b"x")
        await consoles.close()


@scenario
async def test_when_qemu_hangs_up_viewers_stay_and_nothing_said_meanwhile_is_lost(tmp_path: Path) -> None:
    consoles = Consoles()
    async with FakeQemu(tmp_path) as qemu:
        await consoles.attach("vm-1", qemu.socket)
        viewer = await consoles.session("vm-1")
        await qemu.say(b"one ")
        await see(viewer, b"one ")
        qemu.hang_up()
        while consoles._consoles["vm-1"]._writer is not None:
            await asyncio.sleep(0)
        qemu.note(b"two ")
        await qemu.say(b"three")
        assert await see(viewer, b"three") == b"two three"
        assert consoles.tail("vm-1") == b"one two three"
        assert qemu.connections == 2
        await consoles.close()


@scenario
async def test_history_survives_a_restart_of_the_agent(tmp_path: Path) -> None:
    async with FakeQemu(tmp_path) as qemu:
        before = Consoles()
        await before.attach("vm-1", qemu.socket)
        await qemu.say(b"said before ")
        await before.close()
        qemu.hang_up()
        qemu.note(b"said while away ")
        after = Consoles()
        await after.attach("vm-1", qemu.socket)
        viewer = await after.session("vm-1")
        await qemu.say(b"said after")
        assert await see(viewer, b"after") == b"said before said while away said after"
        await after.close()


@scenario
async def test_the_log_is_kept_short_and_its_end_is_not_lost(tmp_path: Path) -> None:
    consoles = Consoles()
    async with FakeQemu(tmp_path) as qemu:
        await consoles.attach("vm-1", qemu.socket)
        viewer = await consoles.session("vm-1")
        line = b"0123456789abcdef" * 1024
        for number in range(100):
            await qemu.say(line + b"%04d" % number)
            await see(viewer, b"%04d" % number)
        assert qemu.log.stat().st_size < serial.LOG_MAX + 2 * 65536
        assert read_log(qemu.socket).endswith(line + b"0099")
        assert len(read_log(qemu.socket)) == serial.RING
        await consoles.close()


@scenario
async def test_when_the_vm_goes_off_viewers_are_told_and_the_tail_stays(tmp_path: Path) -> None:
    consoles = Consoles()
    async with FakeQemu(tmp_path) as qemu:
        await consoles.attach("vm-1", qemu.socket)
        viewer = await consoles.session("vm-1")
        await qemu.say(b"Kernel panic")
        await see(viewer, b"panic")
        await consoles.detach("vm-1")
        assert [data async for data in viewer] == []
        assert viewer.why == "the VM is off"
        assert consoles.tail("vm-1") == b"Kernel panic"
        with pytest.raises(Problem) as error:
            await consoles.session("vm-1")
        assert error.value.code is Code.CONFLICT
        await consoles.forget("vm-1")
        assert consoles.tail("vm-1") == b""


@scenario
async def test_a_viewer_whose_vm_does_not_read_waits_and_is_freed_when_it_goes_off(tmp_path: Path) -> None:
    consoles = Consoles()
    silent = asyncio.Event()

    async def never_reads(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    server = await asyncio.start_unix_server(never_reads, str(tmp_path / "serial.sock"))
    await consoles.attach("vm-1", tmp_path / "serial.sock")
    viewer = await consoles.session("vm-1")
    typing = asyncio.create_task(viewer.write(b"x" * 4_000_000))
    done, _ = await asyncio.wait((typing,), timeout=0.3)
    assert not done
    await consoles.detach("vm-1")
    with pytest.raises(Problem):
        await typing
    silent.set()
    server.close()


@scenario
async def test_attaching_before_qemu_listens_connects_as_soon_as_it_does(tmp_path: Path) -> None:
    consoles = Consoles()
    await consoles.attach("vm-1", tmp_path / "serial.sock")
    viewer = await consoles.session("vm-1")
    with pytest.raises(Problem):
        await viewer.write(b"x")
    async with FakeQemu(tmp_path) as qemu:
        await qemu.say(b"hello")
        assert await see(viewer, b"hello") == b"hello"
        await consoles.close()
