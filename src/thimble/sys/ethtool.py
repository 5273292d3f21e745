"""Questions to a network card's driver: linux/ethtool.h, by ioctl."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_PHYS_ID = 0x1C
_PERMANENT_ADDRESS = 0x20


def permanent_mac(link: str) -> str:
    """The MAC burnt into the card; "" when its driver does not know one."""
    asked = array.array("B", struct.pack("II32x", _PERMANENT_ADDRESS, 32))
    try:
        _ask(link, asked)
    except OSError:
        return ""
    size = struct.unpack_from("I", asked, 4)[0]
    raw = bytes(asked[8 : 8 + size])
    return raw.hex(":") if size == 6 and any(raw) else ""


def blink(link: str, seconds: int) -> None:
    """Blink the port's light; returns when it is over: call it in a thread. Raises OSError."""
    _ask(link, array.array("B", struct.pack("II", _PHYS_ID, seconds)))


def _ask(link: str, asked: array.array[int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        request = struct.pack("16sP8x", link.encode(), asked.buffer_info()[0])
        fcntl.ioctl(door, _SIOCETHTOOL, request)
