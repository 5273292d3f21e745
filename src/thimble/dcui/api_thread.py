"""Effects that ask: two threads with a connection each, so that a slow answer never stops the screen.

Answers come back through `take`; `fileno` is readable when there are some. Every failure is a `Failed` with a
`Problem`: nothing raises out of a thread. TLS and HTTP are imported there: the screen does not wait.
"""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thimble.contract.document_api import SIZE_MAX
from thimble.core.problem import Code, Problem
from thimble.dcui import local
from thimble.dcui.model import Answer, Ask, Failed, Load, Look, Looked, Message, TellInit

if TYPE_CHECKING:
    from thimble.client.plain import PlainClient

Question = Ask | Load | Look | TellInit
#: Questions that are asked again and again have a thread of their own.
OFTEN = frozenset(("host", "datastores", "vms", "tasks", "task", ""))


class Link:
    """`run`: where PID 1 and the agent leave their facts."""

    def __init__(self, run: Path, *, timeout: float = 30.0) -> None:
        self._run, self._timeout = run, timeout
        self._answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._queues: list[queue.SimpleQueue[Question | None]] = [queue.SimpleQueue(), queue.SimpleQueue()]
        self._threads = [
            threading.Thread(target=self._work, args=(waiting,), daemon=True) for waiting in self._queues
        ]
        for thread in self._threads:
            thread.start()

    def fileno(self) -> int:
        return self._read

    def ask(self, question: Question) -> None:
        often = isinstance(question, Look) or (isinstance(question, Ask) and question.to in OFTEN)
        self._queues[1 if often else 0].put(question)

    def take(self) -> list[Message]:
        """All answers that came."""
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            pass
        found = []
        while not self._answers.empty():
            found.append(self._answers.get())
        return found

    def client(self) -> PlainClient:
        """Of the agent as it is now: after a restart it has another token. Raises `Problem`."""
        from thimble.client.plain import PlainClient
        from thimble.client.trust import Trust

        there = local.access(self._run)
        if not there.url:
            raise Problem(Code.UNAVAILABLE, "the agent has not served yet", hint="See the log for why.")
        return PlainClient(
            there.url, trust=Trust(fingerprint=there.fingerprint), token=there.token, timeout=self._timeout
        )

    def close(self, timeout: float = 2.0) -> None:
        """What was asked is done, if it does not take long."""
        for waiting in self._queues:
            waiting.put(None)
        for thread in self._threads:
            thread.join(timeout)

    def _work(self, waiting: queue.SimpleQueue[Question | None]) -> None:
        client: PlainClient | None = None
        known = local.Access()
        while (question := waiting.get()) is not None:
            try:
                if isinstance(question, Ask):
                    there = local.access(self._run)
                    if client is None or there != known:
                        if client is not None:
                            client.close()
                        client, known = self.client(), there
                    self._say(Answer(question, _call(client, question)))
                else:
                    self._other(question)
            except Problem as problem:
                self._fail(question, problem)
            except Exception as error:  # a fault of ours is a word on the screen, never a trace
                self._fail(question, Problem(Code.INTERNAL, f"{type(error).__name__}: {error}"))

    def _other(self, question: Question) -> None:
        if isinstance(question, Load):
            self._say(Answer(question, _load(question.where)))
        elif isinstance(question, Look):
            lines = local.log(self._run, 1000) if question.log else None
            self._say(Looked(local.look(self._run), lines))
        elif isinstance(question, TellInit):
            local.tell(self._run, question.verb)

    def _fail(self, question: Question, problem: Problem) -> None:
        asked = question if isinstance(question, Ask | Load) else Load("", "")
        self._say(Failed(asked, problem))

    def _say(self, message: Message) -> None:
        self._answers.put(message)
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            pass  # it is readable already


def _call(client: PlainClient, question: Ask) -> Any:
    if question.fresh:
        client.close()
    return client.call(
        question.verb,
        question.input,
        path=question.path,
        query=question.query,
        dry_run=question.dry_run,
        if_match=question.if_match,
        token=question.token or None,
    )


def _load(where: str) -> str:
    """A document of a file or a URL, at most as large as one may be."""
    if where.startswith("/"):
        try:
            with open(where, "rb") as file:
                data = file.read(SIZE_MAX + 1)
        except OSError as error:
            raise Problem(Code.NOT_FOUND, f"{where} cannot be read: {error.strerror}") from error
    else:
        data = _fetched(where)
    if len(data) > SIZE_MAX:
        raise Problem(Code.TOO_LARGE, f"{where} is larger than a document may be (1 MiB)")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Problem(Code.INVALID, f"{where} is no text in UTF-8: {error}") from error


def _fetched(url: str) -> bytes:
    import ssl
    import urllib.error
    import urllib.request

    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl.create_default_context())
    )
    try:
        with opener.open(url, timeout=20) as answer:
            data: bytes = answer.read(SIZE_MAX + 1)
            return data
    except urllib.error.HTTPError as error:
        raise Problem(Code.UNAVAILABLE, f"{url}: the server says {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        raise Problem(
            Code.UNAVAILABLE,
            f"{url}: {getattr(error, 'reason', None) or error}",
            hint="Is the address right, and is the host on that network?",
        ) from error
