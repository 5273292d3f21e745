"""Unix sockets at paths of any length: `sun_path` holds 108 bytes (unix(7)), a descriptor of the directory
makes every path short.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def dial(path: Path) -> socket.socket:
    """A non-blocking connection to the socket `path`. Raises `OSError`."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with _short(path) as short:
            door.connect(short)
    except BaseException:
        door.close()
        raise
    return door


def listen(path: Path) -> socket.socket:
    """A new socket at `path` that listens; what was there is removed. Raises `OSError`."""
    path.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as short:
            door.bind(short)
        door.listen(8)
    except BaseException:
        door.close()
        raise
    return door


@contextmanager
def _short(path: Path) -> Iterator[str]:
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
