"""The host document: found on a volume labelled THIMBLE and copied into RAM, where the agent reads it.

The volume is mounted read-only, for as long as copying takes, in a job child. Choosing is pure.
"""

from __future__ import annotations

import os
import stat

from .. import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..devices.modalias import DriverTable
    from .blocks import BlockDevice

LABEL = "THIMBLE"
PART = "thimble-doc"
NAME = "thimble.toml"
DIRECTORY = "/run/thimble/document"
LONGEST = 1 << 20
_MOUNT = "/run/thimble/volume"
_FLAGS = linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
# The kernel's name for each kind, drivers, options. Even read-only, ext4 would write its journal back.
_KINDS = {
    "fat": ("vfat", ("vfat", "nls_cp437", "nls_ascii"), ""),
    "iso9660": ("iso9660", ("isofs", "nls_utf8"), ""),
    "ext4": ("ext4", ("ext4",), "noload"),
}


def volumes(seen: list[BlockDevice]) -> list[BlockDevice]:
    """All volumes that may hold a document."""
    return [one for one in seen if one["kind"] in _KINDS and one["label"].upper() == LABEL]


def choose(found: list[BlockDevice], disk: str) -> tuple[BlockDevice | None, str]:
    """The one to read, or the problem. `disk`: what the host was booted from, "" if that is not known."""
    own = [one for one in found if one["disk"] == disk] or [one for one in found if one["part"] == PART]
    if len(found) == 1 or len(own) == 1:
        return (own if len(own) == 1 else found)[0], ""
    if not found:
        return None, ""
    names = ", ".join(one["device"] for one in found)
    return None, f"more than one volume is labelled {LABEL}, none of them is used: {names}"


def fetch(table: DriverTable, volume: BlockDevice, *, parse: bool) -> dict[str, Any]:
    """Copies the document; {"path", "management"}. `parse`: the network's settings are wanted."""
    from ..devices.drivers import load

    kind, modules, options = _KINDS[volume["kind"]]
    load(table, modules)
    os.makedirs(_MOUNT, mode=0o700, exist_ok=True)
    linux.mount(volume["device"], _MOUNT, kind, _FLAGS, options)
    try:
        data = read(f"{_MOUNT}/{NAME}")
    finally:
        linux.unmount(_MOUNT, linux.MNT_DETACH)
    if data is None:
        return {"path": "", "management": None}
    return {"path": keep(data), "management": management(data) if parse else None}


def read(path: str) -> bytes | None:
    """The bytes of a regular file; None if there is none. Raises OSError if it cannot be a document."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(0, f"{NAME} is not a regular file")
        if facts.st_size > LONGEST:
            raise OSError(0, f"{NAME} is too large: {facts.st_size} bytes, limit {LONGEST}")
        data = b""
        while len(data) < facts.st_size and (piece := os.read(fd, LONGEST)):
            data += piece
        return data
    finally:
        os.close(fd)


def keep(data: bytes) -> str:
    """Writes the copy, readable by root only: it may hold password hashes."""
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    path = f"{DIRECTORY}/{NAME}"
    with open(
        os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb"
    ) as file:
        file.write(data)
    os.replace(f"{path}.new", path)
    return path


def management(data: bytes) -> Any:
    """`[management]` of the document: a table, None without one, or a text with the reason it cannot be read.

    The servers of `[time]` become its `ntp`, as they do in the record.
    """
    import tomllib

    try:
        tree = tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return str(error)
    found, times = tree.get("management"), tree.get("time")
    if isinstance(times, dict) and "servers" in times and (found is None or isinstance(found, dict)):
        found = {**(found or {}), "ntp": times["servers"]}
    return _plain(found)


def _plain(value: Any) -> Any:
    """Dates and the like as text: only plain data crosses the pipe to PID 1."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)
