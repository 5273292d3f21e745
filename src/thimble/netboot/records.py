"""What is kept of booting neighbours.

    <state>/netboot/netboot.json         what is served, and where
    <state>/neighbours/52-54-….json      one that came: its number and the token it reads its document with

Both are readable by root alone: documents hold hashes of passwords.
"""

from __future__ import annotations

import msgspec

from thimble.contract.netboot import ServeBoot

ID = "netboot"


class NetbootRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`subnet`: the address with prefix this host gives itself on the switch; empty where it has one."""

    settings: ServeBoot
    subnet: str = ""


class NeighbourRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    number: int
    mac: str
    token: str
    serial: str = ""
    document: str = ""  # the `match` that gave it
    boots: int = 0
    asked: float = 0.0  # the last boot; seconds since the epoch


def key(mac: str) -> str:
    """A MAC as the name of a record."""
    return mac.lower().replace(":", "-")
