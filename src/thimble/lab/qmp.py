"""One QMP conversation with a server's QEMU, synchronous: connect, ask, close.

Nothing is kept between calls.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import msgspec

from thimble.core.problem import Code, Problem
from thimble.lab.home import connect


class Qmp:
    """`with Qmp(path) as qmp: qmp.execute("query-status")`."""

    def __init__(self, path: Path, *, timeout: float = 10) -> None:
        self._path = path
        self._timeout = timeout

    def __enter__(self) -> Qmp:
        self._socket = connect(self._path, timeout=self._timeout)
        self._file = self._socket.makefile("rwb")
        try:
            self._read()
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def execute(self, command: str, **arguments: object) -> object:
        """The answer's `return`; events in between are dropped."""
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self._file.write(msgspec.json.encode(request) + b"\n")
        self._file.flush()
        while True:
            answer = self._read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise Problem(Code.FAILED, f"QEMU refused {command}: {answer['error']}")

    def human(self, line: str) -> str:
        """What the human monitor answers to a line."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def _read(self) -> dict[str, object]:
        try:
            line = self._file.readline()
        except TimeoutError as error:
            raise Problem(Code.TIMEOUT, "the server's QEMU does not answer") from error
        if not line:
            raise Problem(Code.UNAVAILABLE, "the server's QEMU has ended")
        return msgspec.json.decode(line, type=dict[str, object])
