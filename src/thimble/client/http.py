"""The client: one connection pool to one agent. Blocking; every wait has its own deadline.

    with Client(url, trust=trust, token=token) as client:
        started: Started = client.call("vm.create", VmCreate(name="web1"))
        client.wait(started.task, progress=print)

`call` answers the verb's output type (`Started` for long work, `DryRun` when asked so); it raises `Problem`,
nothing else. A connection is never made through a proxy of the environment: hosts are on one's own networks.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import httpx
import msgspec

from thimble.client import wire
from thimble.client.address import base_url, endpoint
from thimble.client.events import EventParser
from thimble.client.trust import Trust, context
from thimble.contract.common import Event, Task, TaskState
from thimble.contract.hardware import LogLine
from thimble.contract.verbs import Started
from thimble.core.problem import Code, Problem

if TYPE_CHECKING:
    from typing import Unpack

    from websockets.sync.client import ClientConnection

T = TypeVar("T")

#: Uploads go in pieces of this many bytes.
PIECE = 256 * 1024
#: An event stream that is silent longer is opened anew, after the last event seen; a bounded one sooner, so
#: that it ends in time whatever the server's keep-alives are.
SILENCE_S = 45.0
STRETCH_S = 5.0


class Client:
    """`timeout` seconds for each answer to begin; `transport` replaces the network in tests."""

    def __init__(
        self,
        url: str,
        *,
        trust: Trust | None = None,
        token: str = "",
        timeout: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = base_url(url)
        self.token = token
        self._timeout = timeout
        self._tls = context(trust or Trust()) if self.url.startswith("https:") and transport is None else None
        self.http = httpx.Client(
            base_url=self.url,
            verify=self._tls or False,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def call(self, name: str, input: msgspec.Struct | None = None, **options: Unpack[wire.Options]) -> Any:
        """Ask for the verb `name`. The type of the answer is the contract's, and it was decoded as such."""
        asked = wire.request(name, input, token=self.token, **options)
        with self._troubles():
            answer = self.http.request(
                asked.method, asked.target, content=asked.body or None, headers=asked.headers
            )
        return wire.value(asked, wire.Answer(answer.status_code, answer.content))

    def wait(
        self,
        task: Task,
        *,
        timeout: float | None = None,
        progress: Callable[[Task], None] | None = None,
        pace: float = 1.0,
    ) -> Task:
        """The task when it is done. `progress` hears of it at least every `pace` seconds.

        Raises the task's own `Problem` when it failed or was cancelled, TIMEOUT after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while task.state is TaskState.RUNNING:
            if progress:
                progress(task)
            left = 60.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise Problem(
                    Code.TIMEOUT,
                    f"{task.verb} still runs after {timeout:.0f} s",
                    hint=f"It goes on; `thimble task wait {task.id}` waits for it.",
                )
            patience = min(left, pace if progress else self._timeout / 2)
            task = self.call("task.get", path={"task": task.id}, query={"wait_s": f"{patience:.3f}"})
        if progress:
            progress(task)
        if task.problem is not None:
            raise task.problem.problem()
        return task

    def finish(self, started: Started, **options: Any) -> Task:
        """`wait` for what `call` has started."""
        return self.wait(started.task, **options)

    def upload(
        self,
        name: str,
        file: BinaryIO,
        length: int,
        *,
        path: Mapping[str, str],
        query: Mapping[str, object] | None = None,
        progress: Callable[[int], None] | None = None,
        dry_run: bool = False,
    ) -> tuple[Any, str]:
        """Stream `length` bytes of `file`; the answer, and the SHA-256 of what was sent."""
        asked = wire.request(name, token=self.token, path=path, query=query, dry_run=dry_run)
        digest = hashlib.sha256()

        def pieces() -> Iterator[bytes]:
            sent = 0
            while sent < length and (piece := file.read(min(PIECE, length - sent))):
                digest.update(piece)
                sent += len(piece)
                yield piece
                if progress:
                    progress(sent)

        content = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        with self._troubles():
            answer = self.http.request(
                asked.method,
                asked.target,
                content=pieces(),
                headers=asked.headers | content,
                timeout=httpx.Timeout(self._timeout, read=600.0),
            )
        return wire.value(asked, wire.Answer(answer.status_code, answer.content)), digest.hexdigest()

    def download(self, name: str, into: BinaryIO, *, progress: Callable[[int], None] | None = None) -> int:
        """Write what the verb `name` gives to `into`; how many bytes that were."""
        asked, count = wire.request(name, token=self.token), 0
        with self._stream(asked, "application/gzip", silence=600.0) as answer:
            for piece in answer.iter_bytes():
                into.write(piece)
                count += len(piece)
                if progress:
                    progress(count)
        return count

    def logs(self, query: Mapping[str, object], *, timeout: float | None = None) -> Iterator[LogLine]:
        """The log's last lines and what comes, for ever or for `timeout` seconds.

        A connection that breaks is made anew, and what was shown already is not shown again.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        last: list[LogLine] = []  # those of the latest time
        while (left := None if deadline is None else deadline - time.monotonic()) is None or left > 0:
            opened = time.monotonic()
            shown = list(last)
            for line in self._values("host.follow", query, LogLine, left):
                opened = 0.0
                if line in shown:
                    continue
                last = [*last, line] if last and last[0].time == line.time else [line]
                yield line
            if last:
                query = {**query, "since": f"{last[0].time:.3f}", "lines": 10_000}
            if time.monotonic() - opened < 1.0:
                time.sleep(1.0 if left is None else min(left, 1.0))

    def events(self, after: int | None = None, *, timeout: float | None = None) -> Iterator[Event]:
        """What changes, later than `after` (from now on when None), for ever or for `timeout` seconds.

        Silent connections are resumed without a gap (give `after` for that). Raises `Problem` GONE when
        that is not possible.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            opened = time.monotonic()
            for event in self._values("event.stream", {"after": after}, Event, left):
                opened = 0.0
                after = event.rev
                yield event
            # A server that hangs up at once without a word is not asked again at once.
            if time.monotonic() - opened < 1.0:
                time.sleep(1.0 if left is None else min(left, 1.0))

    def _values(
        self, name: str, query: Mapping[str, object], kind: type[T], left: float | None
    ) -> Iterator[T]:
        """One connection's values, until it falls silent or time is up."""
        asked = wire.request(name, token=self.token, query=query)
        silence = SILENCE_S if left is None else min(left, STRETCH_S)
        until = None if left is None else time.monotonic() + left
        parser = EventParser(kind)
        try:
            with self._stream(asked, "text/event-stream", silence=silence) as answer:
                for line in answer.iter_lines():
                    if event := parser.line(line):
                        yield event
                    # Only between events, so that each connection gets on by one at least.
                    if until is not None and not line and until - time.monotonic() < silence - 0.5:
                        return
        except Problem as problem:
            if problem.code is not Code.TIMEOUT or isinstance(problem.__cause__, httpx.ConnectTimeout):
                raise

    def console(self, vm: str) -> ClientConnection:
        """The VM's serial line: a WebSocket that carries its bytes both ways, the kept output first."""
        from websockets.exceptions import InvalidHandshake, InvalidStatus
        from websockets.sync.client import connect

        verb = wire.verb("vm.console")
        url = "ws" + self.url.removeprefix("http") + wire.target(verb, {"vm": vm}, {})
        extra = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            return connect(
                url, ssl=self._tls, additional_headers=extra, compression=None, proxy=None, open_timeout=15
            )
        except InvalidStatus as error:
            raise wire.problem(error.response.status_code, error.response.body or b"") from error
        except (InvalidHandshake, OSError, TimeoutError) as error:
            raise wire.unreachable(self._where(), error) from error

    @contextmanager
    def _stream(self, asked: wire.Request, kind: str, *, silence: float) -> Iterator[httpx.Response]:
        """A good answer of the content type `kind`, still to be read."""
        with (
            self._troubles(),
            self.http.stream(
                asked.method,
                asked.target,
                headers=asked.headers | {"Accept": kind},
                timeout=httpx.Timeout(self._timeout, read=silence),
            ) as answer,
        ):
            if answer.is_error:
                raise wire.problem(answer.status_code, answer.read())
            yield answer

    def _where(self) -> str:
        host, port = endpoint(self.url)
        return f"{host}:{port}"

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        """Network errors become problems."""
        try:
            yield
        except httpx.ConnectError as error:
            raise wire.unreachable(self._where(), error) from error
        except httpx.TimeoutException as error:
            raise wire.silent(self._where()) from error
        except (httpx.HTTPError, httpx.StreamError, ssl.SSLError) as error:
            raise wire.lost(self._where(), error) from error
