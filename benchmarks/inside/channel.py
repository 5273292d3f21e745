"""The line to the bench outside: one TCP connection, one JSON object a line both ways.

The port is reached through the virtual server's user network, so it answers once the server has its address.
"""

from __future__ import annotations

import json
import socket
from typing import Any

PORT = 7070


class Channel:
    """Waits for the bench to connect."""

    def __init__(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("0.0.0.0", PORT))
        listening.listen(1)
        self._link, _ = listening.accept()
        self._lines = self._link.makefile("rb")

    def hear(self) -> dict[str, Any]:
        """The next object from outside."""
        found = json.loads(self._lines.readline())
        assert isinstance(found, dict)
        return found

    def say(self, **what: object) -> None:
        self._link.sendall(json.dumps(what).encode() + b"\n")
