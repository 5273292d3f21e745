"""The serial consoles of running VMs.

One reader per VM takes everything QEMU has to say, at once and always: a guest never waits for a viewer. It
goes into a ring for those who come late, and to every viewer's queue; a viewer whose queue is full is
dropped. The other way, what a viewer types waits until QEMU takes it.

    <vm run dir>/serial.sock       QEMU listens; we are its one client, and come back when it drops us
    <vm run dir>/serial.log        QEMU appends the same bytes; gives the history back after a restart of ours
    <vm run dir>/serial.log.old    the end of what was cut off when the log became too long
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from thimble.console.ring import Ring, missed
from thimble.core.problem import Code, Problem
from thimble.state.background import Background
from thimble.sys import logfile, unix
from thimble.sys.worker import Worker

RING = 64 * 1024
LOG_MAX = 1024 * 1024
#: Bytes that may wait for one viewer.
QUEUE_MAX = 512 * 1024
_RETRY_FIRST = 0.05
_RETRY_MAX = 2.0


class Session:
    """One viewer. Iterate for output, the ring's content first; it ends when the VM or the viewer goes."""

    def __init__(self, console: _Console) -> None:
        self._console = console
        self._waiting = bytearray(console.ring.content())
        self._wake = asyncio.Event()
        self._ended = False
        #: Why it ended, for the viewer: empty if it closed itself.
        self.why = ""
        if self._waiting:
            self._wake.set()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            await self._wake.wait()
            data, self._waiting = bytes(self._waiting), bytearray()
            self._wake.clear()
            if data:
                yield data
            if self._ended and not self._waiting:
                return
            if self._ended:
                self._wake.set()

    async def write(self, data: bytes) -> None:
        """Type `data`; returns when QEMU has taken it. Raises `Problem` UNAVAILABLE when nobody is there."""
        if self._ended:
            raise Problem(Code.UNAVAILABLE, self.why or "this console is closed")
        await self._console.write(data)

    def close(self) -> None:
        """Leave. Fine to do twice."""
        self._console.sessions.discard(self)
        self._end("")

    def _give(self, data: bytes) -> None:
        if len(self._waiting) + len(data) > QUEUE_MAX:
            self._console.sessions.discard(self)
            self._waiting.clear()
            self._end("too slow: more output came than was read")
            return
        self._waiting += data
        self._wake.set()

    def _end(self, why: str) -> None:
        if not self._ended:
            self._ended, self.why = True, why
            self._wake.set()


class Consoles:
    """All of them, by VM id."""

    def __init__(self) -> None:
        self._consoles: dict[str, _Console] = {}

    async def attach(self, vm_id: str, socket: Path) -> None:
        """Begin to listen to QEMU at `socket`; returns when connected, or after the first try failed."""
        await self.detach(vm_id)
        console = self._consoles[vm_id] = _Console(socket)
        await console.open()

    async def detach(self, vm_id: str) -> None:
        """The VM is off: its viewers' sessions end. What it said last is still there for `tail`."""
        console = self._consoles.get(vm_id)
        if console is not None:
            await console.close("the VM is off")

    async def forget(self, vm_id: str) -> None:
        """The VM is deleted."""
        await self.detach(vm_id)
        self._consoles.pop(vm_id, None)

    def tail(self, vm_id: str) -> bytes:
        """The last output, at most `RING` bytes; empty for a VM never attached."""
        console = self._consoles.get(vm_id)
        return console.ring.content() if console else b""

    async def session(self, vm_id: str) -> Session:
        """A new viewer. Raises `Problem` CONFLICT when the VM is off or has no serial port."""
        console = self._consoles.get(vm_id)
        if console is None or console.closed:
            raise Problem(
                Code.CONFLICT,
                "this VM has no console now",
                hint="It is off, or was made without a serial port.",
            )
        session = Session(console)
        console.sessions.add(session)
        return session

    async def close(self) -> None:
        """Leave all; the VMs run on, their logs keep what they say."""
        for console in self._consoles.values():
            await console.close("the agent stops")


def read_log(socket: Path) -> bytes:
    """The last output as the log beside `socket` has it; for a VM that ended while we were away. Blocks."""
    log = socket.with_name("serial.log")
    return (logfile.tail(log.with_name("serial.log.old"), RING) + logfile.tail(log, RING))[-RING:]


class _Console:
    """One VM's console: the connection, the ring, the viewers."""

    def __init__(self, socket: Path) -> None:
        self.ring = Ring(RING)
        self.sessions: set[Session] = set()
        self.closed = False
        self._socket = socket
        self._log = socket.with_name("serial.log")
        self._writer: asyncio.StreamWriter | None = None
        self._typing = asyncio.Lock()
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._known = 0  # bytes of the log that are in the ring
        self._worker = Worker("console")
        self._background = Background()

    async def open(self) -> None:
        self._known, history = await self._worker.run(
            lambda: (logfile.size(self._log), read_log(self._socket))
        )
        if history:
            self.ring.put(history)
        self._task = self._background.keep(f"console at {self._socket}", self._listen())
        await self._tried.wait()

    async def close(self, why: str) -> None:
        if self.closed:
            return
        self.closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for session in list(self.sessions):
            session._end(why)
        self.sessions.clear()

    async def write(self, data: bytes) -> None:
        async with self._typing:
            writer = self._writer
            if writer is None:
                raise Problem(Code.UNAVAILABLE, "the VM does not listen to its console now")
            try:
                for start in range(0, len(data), 4096):
                    writer.write(data[start : start + 4096])
                    await writer.drain()
                    if self._writer is not writer:
                        raise ConnectionResetError
            except OSError as error:
                raise Problem(Code.UNAVAILABLE, "the VM closed its console") from error

    async def _listen(self) -> None:
        """Connect, read to the end, again; until `close`."""
        pause = _RETRY_FIRST
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(sock=unix.dial(self._socket))
            except OSError:
                self._tried.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RETRY_MAX)
                continue
            pause = _RETRY_FIRST
            self._writer = writer
            self._tried.set()
            try:
                await self._read(reader)
            except OSError:
                pass
            finally:
                self._writer = None
                writer.transport.abort()  # not close(): that waits until what was typed is taken
            self._known = logfile.size(self._log)  # at once: from now on nobody else hears what is said
            await asyncio.sleep(pause)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        first, since = True, 0
        while data := await reader.read(65536):
            if first:
                first = False
                gap = logfile.after(self._log, self._known, 4 * RING)  # at once: it grows
                if before := missed(gap, data):
                    self._give(before)
            self._give(data)
            since += len(data)
            if since > LOG_MAX // 8:
                since = 0
                await self._worker.run(lambda: logfile.shorten(self._log, most=LOG_MAX, keep=RING))

    def _give(self, data: bytes) -> None:
        self.ring.put(data)
        for session in list(self.sessions):
            session._give(data)
