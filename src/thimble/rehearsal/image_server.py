"""Images for the server to fetch, over plain HTTP as from any web server."""

from __future__ import annotations

import http.server
import threading
from functools import partial
from pathlib import Path

import msgspec

from thimble.medium import uki

#: Where the lab's user network shows this machine.
HERE = "10.0.2.2"


class ServedImage(msgspec.Struct, frozen=True, kw_only=True):
    """A built image and the certificate it is signed with."""

    path: Path
    url: str
    build: str


class ImageServer:
    """Serves one directory until the process ends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        handler = partial(_Quiet, directory=str(directory))
        self._server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def image(self, name: str) -> ServedImage:
        """The image of this file name. Raises `Problem` INVALID when it is none."""
        path = self._directory / name
        url = f"http://{HERE}:{self._server.server_address[1]}/{name}"
        return ServedImage(path=path, url=url, build=build_of(path))


def build_of(path: Path) -> str:
    """The build of an image file."""
    with path.open("rb") as file:
        read = uki.parse(file.read(uki.HEAD_BYTES), path.stat().st_size)
        words = read.sections[".cmdline"]
        file.seek(words.offset)
        return uki.build_of(uki.command_line(file.read(words.size)))


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Nothing: connections end when the power goes."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""
