"""PID 1 as far as the management network goes: it listens, tries what it is told, and writes its facts."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class FirstProcess:
    """`in_force` at once or when told; `undo()` is what the end of the time does."""

    def __init__(self, run: Path, *, settles: bool = True, words: dict[str, str] | None = None) -> None:
        self._run = run
        self._settles = settles
        self._words = words or {}
        self.heard: list[dict[str, Any]] = []
        self.trial: dict[str, Any] | None = None
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.bind(str(run / "init.sock"))
        self._write()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """The new addresses are there."""
        assert self.trial is not None
        self.trial = self.trial | {"in_force": now()}
        self._write()

    def undo(self) -> None:
        self.trial = None
        self._write()

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.sendto(b"{}", str(self._run / "init.sock"))
        self._thread.join(5)
        self._line.close()

    def _listen(self) -> None:
        while message := json.loads(self._line.recv(65536)):
            self.heard.append(message)
            if "trial" in message:
                self.trial = {
                    "id": message["id"],
                    "settings": message["trial"],
                    "deadline": now() + message["seconds"],
                    "in_force": now() if self._settles else 0.0,
                }
            else:
                self.trial = None
            self._write()

    def _write(self) -> None:
        path = self._run / "boot.json"
        facts = {"network_trial": self.trial, "cmdline": self._words, "warnings": []}
        (new := path.with_suffix(".new")).write_text(json.dumps(facts))
        new.replace(path)
