"""Booting neighbours on the wire: what is served to whom, and who came."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from thimble.contract.common import In, Listed, Out


class Mode(StrEnum):
    DHCP = "dhcp"  # this host gives the addresses on that wire, alone
    PROXY = "proxy"  # another DHCP server does; this host only says what to boot (PXE 2.1, proxyDHCP)


class DocumentFor(In, frozen=True, kw_only=True):
    """A host document for `match`: a MAC, `serial:NUMBER` (as the firmware tells it), or `any`.

    In `text`, `{{n}}` is the neighbour's number in the order of arrival, from 1; `{{mac}}`, `{{serial}}` and
    `{{server}}` (this host's address on the wire) are known, too.
    """

    match: str
    text: str


class ServeBoot(In, frozen=True, kw_only=True):
    """What is served. `subnet`: where this host has no address on the switch yet: `10.9.0.0/24`, a free one
    when empty; or with the address this host is to have, `10.9.0.2/24`, which mode proxy needs.

    `allow`: MACs, `serial:NUMBER`, or `any`; those with a document of their own are allowed as well.
    `image`: empty for the running one, a URL, `upload`, or `datastore/name`. `most`: neighbours at most.
    """

    switch: str
    mode: Mode = Mode.DHCP
    subnet: str = ""
    allow: tuple[str, ...] = ()
    documents: tuple[DocumentFor, ...] = ()
    image: str = ""
    most: Annotated[int, Meta(ge=1, le=1024)] = 64


class Netboot(Out, frozen=True, kw_only=True):
    """`why`: what keeps it from serving. `refused`: requests of those who are not allowed, since it began."""

    on: bool = False
    rev: int = 0
    why: str = ""
    settings: ServeBoot | None = None  # documents without their texts
    address: str = ""
    image_bytes: int = 0
    bytes_sent: int = 0
    refused: int = 0


class Stage(StrEnum):
    """How far a neighbour came at its last boot."""

    ASKED = "asked"  # it was told what to load
    LOADED = "loaded"  # kernel and RAM root are with it
    READY = "ready"  # its agent answers
    APPLIED = "applied"  # its document is applied
    FAILED = "failed"  # it said what is wrong


class NeighbourVm(In, frozen=True, kw_only=True):
    name: Annotated[str, Meta(max_length=64)]
    state: Annotated[str, Meta(max_length=32)]


class NeighbourReport(In, frozen=True, kw_only=True):
    """What a booted host says of itself, over HTTP, every now and then."""

    stage: Stage
    name: Annotated[str, Meta(max_length=64)]
    version: Annotated[str, Meta(max_length=64)] = ""
    url: Annotated[str, Meta(max_length=256)] = ""
    certificate_sha256: Annotated[str, Meta(max_length=64)] = ""
    ready_s: float = 0.0
    problem: Annotated[str, Meta(max_length=1024)] = ""
    vms: Annotated[tuple[NeighbourVm, ...], Meta(max_length=256)] = ()


class Neighbour(Out, frozen=True, kw_only=True):
    """Times are seconds since the epoch; 0: never. `asked` begins the last boot, `seen` is its last word."""

    number: int
    mac: str
    serial: str = ""
    ip: str = ""
    document: str = ""  # the `match` that gave it; empty: none
    stage: Stage = Stage.ASKED
    boots: int = 0
    bytes_sent: int = 0  # at the last boot
    asked: float = 0.0
    loaded: float = 0.0
    ready: float = 0.0
    applied: float = 0.0
    seen: float = 0.0
    report: NeighbourReport | None = None


class NeighbourList(Listed, frozen=True, kw_only=True):
    neighbours: tuple[Neighbour, ...]
