"""The line to the bench outside: the server's second serial port, one JSON object a line, ours marked `bench: `."""

from __future__ import annotations

import json
import os
import time
from typing import Any

PORT = "/dev/ttyS1"
MARK = "bench: "


class Channel:
    """Opened as soon as PID 1 has made /dev; the port is left in its cooked mode, echo included."""

    def __init__(self) -> None:
        while not os.path.exists(PORT):  # noqa: PTH110 — pathlib costs the server more than it is worth
            time.sleep(0.1)
        self._fd = os.open(PORT, os.O_RDWR | os.O_NOCTTY)
        self._rest = b""

    def hear(self) -> dict[str, Any]:
        """The next object from outside."""
        while b"\n" not in self._rest:
            self._rest += os.read(self._fd, 4096)
        line, self._rest = self._rest.split(b"\n", 1)
        found = json.loads(line)
        assert isinstance(found, dict)
        return found

    def say(self, **what: object) -> None:
        os.write(self._fd, (MARK + json.dumps(what) + "\n").encode())
