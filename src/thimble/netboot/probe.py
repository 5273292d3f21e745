"""Is there a DHCP server on a wire? One question (RFC 2131 DHCPDISCOVER), and who offered something."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

#: An offer comes at once, or after the server tried whether the address is free: dnsmasq takes 3 s for that.
WAIT_S = 5.0
_MAGIC = b"\x63\x82\x53\x63"
_TYPE, _SERVER, _END = 53, 54, 255


def discover(mac: bytes, number: int) -> bytes:
    """The question; `number` tells its answers from others'. Answers are asked for by broadcast."""
    head = struct.pack(
        ">BBBBIHH4s4s4s4s16s", 1, 1, 6, 0, number, 0, 0x8000, b"", b"", b"", b"", mac.ljust(16, b"\0")
    )
    options = bytes((_TYPE, 1, 1, 55, 2, 1, 3, _END))
    return (head + bytes(192) + _MAGIC + options).ljust(300, b"\0")


def offered_by(packet: bytes, number: int) -> str:
    """The server that made the offer `packet`; empty when it is none to us."""
    if len(packet) < 241 or packet[0] != 2 or packet[236:240] != _MAGIC:
        return ""
    if struct.unpack_from(">I", packet, 4) != (number,):
        return ""
    at, kind, server = 240, 0, socket.inet_ntoa(packet[20:24])
    while at + 1 < len(packet) and packet[at] != _END:
        if packet[at] == 0:
            at += 1
            continue
        code, value = packet[at], packet[at + 2 : at + 2 + packet[at + 1]]
        at += 2 + packet[at + 1]
        if code == _TYPE and value:
            kind = value[0]
        elif code == _SERVER and len(value) == 4:
            server = socket.inet_ntoa(value)
    return server if kind == 2 else ""


async def dhcp_server(link: str, number: int, wait: float = WAIT_S) -> str:
    """The address of a DHCP server that answers on `link`; empty when none does within `wait` seconds."""
    try:
        mac = bytes.fromhex(Path(f"/sys/class/net/{link}/address").read_text().strip().replace(":", ""))
        line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    except (OSError, ValueError):
        return ""
    with line:
        line.setblocking(False)
        try:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
            line.bind(("", 68))
            line.sendto(discover(mac, number), ("255.255.255.255", 67))
            async with asyncio.timeout(wait):
                loop = asyncio.get_running_loop()
                while True:
                    if found := offered_by(await loop.sock_recv(line, 2048), number):
                        return found
        except (TimeoutError, OSError):
            return ""
