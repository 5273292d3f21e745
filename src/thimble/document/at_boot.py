"""The document that was found at boot: on a volume, or at an address on the kernel command line.

    PID 1's facts ─► text (read, or fetched until it comes) ─► settled before? nothing : plan, apply

Runs beside everything else after "ready", and whatever goes wrong is a warning and a line on the console: the
host stays manageable. An address may end in `#sha256=DIGEST`; then nothing else is accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from thimble.contract.call import Call
from thimble.contract.document_api import SIZE_MAX, DocumentText
from thimble.contract.host import Role
from thimble.contract.verbs import Started
from thimble.core.problem import Code, Problem
from thimble.document.records import digest
from thimble.host.pid1 import DocumentFacts, Init
from thimble.state.tasks import Tasks
from thimble.sys import files, log

if TYPE_CHECKING:
    from thimble.contract.document import InstallEntry
    from thimble.document.service import DocumentService

#: Seconds for one try to fetch a document, and the pauses between tries.
TRY_S = 30.0
SILENCE_S = 10.0
ADDRESS_S = 30  # how long the host waits for an address of its own before the first try
PAUSES_S = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
#: How often PID 1's facts are looked at while it still searches for a document.
SEARCH_PAUSE_S = 0.5
#: Mistakes shown on the console; the rest is in the warnings.
LINES_MAX = 8


async def settle(
    init: Init,
    service: DocumentService,
    at_boot: BootDocument,
    install: Callable[[InstallEntry], Awaitable[None]],
    *,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Wait until PID 1 has found a document (it looks at CDs only when the host has long been ready), apply
    it, then `install` as it says.
    """
    while not init.searched and init.document is None:
        await sleep(SEARCH_PAUSE_S)
    found = init.document
    if found is None:
        return
    await at_boot.settle(found)
    if service.problem:  # what was applied before this one does not say what to do now
        return
    document = service.last_document()
    if document is not None and document.install is not None and document.install.disk:
        await install(document.install)


class BootDocument:
    """`say` puts a line on the console; `online`: does the host have an address? `ended`: is called when the
    document is applied, or cannot be.
    """

    def __init__(
        self,
        service: DocumentService,
        tasks: Tasks,
        say: Callable[[str], None],
        *,
        run: Path,
        online: Callable[[], bool] = lambda: True,
        ended: Callable[[], None] = lambda: None,
        timeout: float = TRY_S,
        pauses: tuple[float, ...] = PAUSES_S,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._service = service
        self._tasks = tasks
        self._say = say
        self._run = run
        self._online = online
        self._ended = ended
        self._timeout = timeout
        self._pauses = pauses
        self._sleep = sleep

    async def settle(self, found: DocumentFacts) -> None:
        """Bring the host to the document; never raises `Problem`."""
        source = found.source or found.url or found.path
        try:
            if found.problem:
                raise Problem(Code.FAILED, found.problem)
            if found.url:
                text = await self._fetched(found.url)
            else:
                text = await asyncio.to_thread(_text, Path(found.path))
            await self._apply(text, source)
        except Problem as problem:
            self._report(source, problem)
        self._ended()

    async def _apply(self, text: str, source: str) -> None:
        if self._service.settled(digest(text)):
            log.say(f"document {source}: as applied before")
            return
        given = DocumentText(text=text, source=source)
        call = Call(input=given, user="document", role=Role.ADMIN)
        started = await self._service.apply(call)
        assert isinstance(started, Started)
        ended = await self._tasks.wait(started.task.id)
        if ended.problem is not None:
            raise ended.problem.problem()
        await self._service.settle(text, source)
        lines = ended.result.get("done", "").splitlines()
        self._say(f"document {source}: applied" + (f", {len(lines)} changes" if lines else ""))
        for line in lines:
            log.say(f"document: {line}")

    async def _fetched(self, url: str) -> str:
        """Tries until it comes. Raises `Problem` when the address itself is wrong."""
        from thimble.sys import fetch

        address, _, pin = url.partition("#sha256=")
        target = self._run / "document" / "fetched.toml"
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for _ in range(ADDRESS_S):  # a first failure that means nothing would be alarming
            if self._online():
                break
            await self._sleep(1.0)
        tries = 0
        while True:
            try:
                await fetch.fetch(
                    address,
                    target,
                    limit=SIZE_MAX,
                    silence=min(SILENCE_S, self._timeout),
                    timeout=self._timeout,
                )
                text = await asyncio.to_thread(_text, target)
                if pin and digest(text) != pin.strip().lower():
                    raise Problem(
                        Code.INVALID, f"its SHA-256 is {digest(text)}, not {pin}: it is not accepted"
                    )
                return text
            except Problem as problem:
                if problem.code is Code.INVALID and not pin:
                    raise
                pause = self._pauses[min(tries, len(self._pauses) - 1)]
                if self._service.problem != f"{url}: {problem.detail}":
                    self._service.problem = f"{url}: {problem.detail}"
                    self._say(f"document {url}: {problem.detail}; tried again from time to time")
                tries += 1
            finally:
                with suppress(OSError):
                    target.unlink()
            await self._sleep(pause)

    def _report(self, source: str, problem: Problem) -> None:
        lines = [
            f"{reason.line}:{reason.column}: {reason.message}" for reason in problem.reasons if reason.line
        ]
        lines += [reason.message for reason in problem.reasons if not reason.line]
        shown = "; ".join(lines[:LINES_MAX])
        more = f"; and {len(lines) - LINES_MAX} more" if len(lines) > LINES_MAX else ""
        self._service.problem = f"{source}: {problem.detail}" + (f": {shown}{more}" if lines else "")
        self._say(f"document {source} is not applied: {problem.detail}")
        for line in lines[:LINES_MAX]:
            self._say(f"document {line}")


def _text(path: Path) -> str:
    """Raises `Problem` FAILED, TOO_LARGE, MALFORMED."""
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise files.problem(error, f"cannot read {path}") from error
    if len(data) > SIZE_MAX:
        raise Problem(Code.TOO_LARGE, f"a document has at most {SIZE_MAX >> 10} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Problem(
            Code.MALFORMED,
            f"line {line} of the document is not UTF-8",
            hint="Save it as UTF-8 without more.",
        ) from None
