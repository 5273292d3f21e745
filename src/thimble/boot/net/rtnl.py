"""The kernel's messages about links and addresses. Pure. Layout: linux/rtnetlink.h, linux/if_link.h."""

from __future__ import annotations

from struct import Struct

from .netaddr import mac_text, text_of

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
IFF_UP, IFF_RUNNING, IFF_LOOPBACK, IFF_LOWER_UP = 0x1, 0x40, 0x8, 0x10000
_IFLA_ADDRESS, _IFLA_IFNAME, _IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 3, 1, 2, 8
_IFA_F_TENTATIVE, _IFA_F_DADFAILED = 0x40, 0x08

_HEADER = Struct("=IHHII")
_LINK = Struct("=BxHiII")
_ADDRESS = Struct("=BBBBI")


class LinkMessage:
    """A network link as the kernel reports it."""

    __slots__ = ("flags", "gone", "index", "mac", "name")

    def __init__(self, index: int, name: str, mac: str, flags: int, gone: bool) -> None:  # noqa: FBT001
        self.index, self.name, self.mac, self.flags, self.gone = index, name, mac, flags, gone

    def has_carrier(self) -> bool:
        return bool(self.flags & IFF_UP and self.flags & IFF_LOWER_UP)


class AddressMessage:
    """An address on the link `index`; `usable` once duplicate address detection let it through."""

    __slots__ = ("address", "gone", "index", "prefix", "usable")

    def __init__(self, index: int, address: str, prefix: int, usable: bool, gone: bool) -> None:  # noqa: FBT001
        self.index, self.address, self.prefix, self.usable, self.gone = index, address, prefix, usable, gone


def dump_request(kind: int) -> bytes:
    """A request for all links or addresses."""
    return _HEADER.pack(17, kind, 0x301, 1, 0) + b"\0"


def parse(data: bytes) -> list[LinkMessage | AddressMessage]:
    """The links and addresses in one datagram; other messages are passed over."""
    found: list[LinkMessage | AddressMessage] = []
    at = 0
    while at + 16 <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < 16 or at + length > len(data):
            break
        body = data[at + 16 : at + length]
        if kind in (RTM_NEWLINK, RTM_DELLINK) and len(body) >= 16:
            found.append(_link(body, gone=kind == RTM_DELLINK))
        elif kind in (RTM_NEWADDR, RTM_DELADDR) and len(body) >= 8:
            found.append(_address(body, gone=kind == RTM_DELADDR))
        at += (length + 3) & ~3
    return found


def _link(body: bytes, *, gone: bool) -> LinkMessage:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    attributes = _attributes(body[16:])
    name = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace")
    return LinkMessage(index, name, mac_text(attributes.get(_IFLA_ADDRESS, b"")), flags, gone)


def _address(body: bytes, *, gone: bool) -> AddressMessage:
    _, prefix, flags, _, index = _ADDRESS.unpack_from(body)
    attributes = _attributes(body[8:])
    flags = int.from_bytes(attributes.get(_IFA_FLAGS, bytes([flags])), "little")
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
    text = text_of(packed) if len(packed) in (4, 16) else ""
    return AddressMessage(index, text, prefix, not flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED), gone)


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 2], "little")
        if length < 4:
            break
        found[int.from_bytes(data[at + 2 : at + 4], "little") & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found
