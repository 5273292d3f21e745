"""Descriptors handed to a QEMU, which opens nothing of ours by path."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from thimble.sys import files, unix


class LaunchFds:
    """Descriptors for one QEMU; closed on our side when the `with` block ends."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> LaunchFds:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def take(self, key: str, descriptor: int) -> None:
        self.fds[key] = descriptor
        self._stack.callback(os.close, descriptor)

    def open(self, key: str, path: Path | str, flags: int, *, mode: int = 0o600) -> None:
        """Raises `Problem` in the system's words."""
        try:
            self.take(key, os.open(path, flags | os.O_CLOEXEC, mode))
        except OSError as error:
            raise files.problem(error, f"cannot open {path}") from error

    def open_regular(self, key: str, path: Path, flags: int) -> None:
        """For what lies in datastores, which others may have written: nothing but a plain file is opened."""
        try:
            self.take(key, files.open_regular(path, flags))
        except OSError as error:
            raise files.problem(error, f"cannot open {path}") from error

    def listen(self, key: str, path: Path) -> None:
        """Bind and listen on the unix socket `path`."""
        try:
            door = unix.listen(path)
        except OSError as error:
            raise files.problem(error, f"cannot listen on {path}") from error
        self.take(key, door.detach())

    def memory(self, key: str, data: bytes) -> None:
        """A file of RAM that has no name, to read; for secrets."""
        with open(os.memfd_create(key, os.MFD_CLOEXEC), "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            self.open(key, f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
