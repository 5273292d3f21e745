"""The files of a boot partition as a value, and a change of one of them as a value. Pure.

thimble/X.efi                 the slot itself            grub/grubenv            what GRUB starts
thimble/X.cfg                 GRUB's way into it         loader/entries/*.conf   what systemd-boot starts
thimble/X.json                what it is (`Manifest`)    thimble/trial.json      what is tried (`Trial`)
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from thimble.medium.loader import Choice

TRIAL = "thimble/trial.json"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a slot's file is. `sha256` and `file_bytes` are of the whole file."""

    build: str
    version: str
    sha256: str = ""
    file_bytes: int = 0


class Expect(msgspec.Struct, frozen=True, kw_only=True):
    """What worked before, and has to work in the new one as well."""

    state: str = ""  # where PID 1 put the state: `partition` or `ram`
    datastores: tuple[str, ...] = ()  # those that were mounted
    address: bool = False  # the host had one
    gateway: bool = False  # and its gateway answered


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A trial boot: a slot offered to the loader. `begun`: seconds since the epoch.

    `boot` is the kernel's boot id at that time; `why`: it was not good.
    """

    kind: str  # `update` or `rollback`
    slot: str
    number: int
    manifest: Manifest
    before: Manifest
    begun: float
    boot: str
    expect: Expect = Expect()
    why: str = ""


class Esp(msgspec.Struct, frozen=True, kw_only=True):
    """A boot partition as found: its files with their sizes, and what is in the small ones."""

    files: dict[str, int] = {}
    small: dict[str, bytes] = {}  # path → content, of all but the slots
    entries: dict[str, str] = {}  # file name → text
    choice: Choice = Choice(default="a")
    manifests: dict[str, Manifest] = {}
    trial: Trial | None = None


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """Write a small file; one of the same length is overwritten in place."""

    path: str
    data: bytes

    def describe(self) -> str:
        return f"writes {self.path}"


class PutImage(msgspec.Struct, frozen=True, kw_only=True):
    """Write the image itself, read it back and compare."""

    path: str

    def describe(self) -> str:
        return f"writes {self.path}, the image"


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    path: str

    def describe(self) -> str:
        return f"removes {self.path}"


Op: TypeAlias = Put | PutImage | Delete


def encoded(value: msgspec.Struct) -> bytes:
    """As it stands in a file."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
