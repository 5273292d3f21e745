"""Links by ioctl: up, MAC, and the bridge of the uplink, so that `ip` is not run on the way to ready."""

from __future__ import annotations

import os
import socket
from fcntl import ioctl
from struct import pack, unpack

from ..files import write_setting

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFHWADDR, _SIOCGIFHWADDR = 0x8913, 0x8914, 0x8924, 0x8927
_SIOCBRADDBR, _SIOCBRADDIF, _SIOCBRDELIF = 0x89A0, 0x89A2, 0x89A3
_IFF_UP = 1


def _request(name: str, rest: bytes) -> bytes:
    return name.encode()[:15].ljust(16, b"\0") + rest.ljust(24, b"\0")


def set_up(name: str) -> None:
    """`ip link set NAME up`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        (flags,) = unpack("16xh", ioctl(sock, _SIOCGIFFLAGS, _request(name, b""))[:18])
        ioctl(sock, _SIOCSIFFLAGS, _request(name, pack("h", flags | _IFF_UP)))


def make_bridge(name: str) -> None:
    """A bridge that forwards at once (no spanning tree, no delay); fine if it is there already."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            ioctl(sock, _SIOCBRADDBR, name.encode() + b"\0")
        except FileExistsError:
            pass
    write_setting(f"/sys/class/net/{name}/bridge/forward_delay", "0")


def add_port(bridge: str, port: str) -> None:
    """Makes `port` a port of the bridge, which takes over its MAC for good."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        hardware = ioctl(sock, _SIOCGIFHWADDR, _request(port, b""))[16:32]
        ioctl(sock, _SIOCSIFHWADDR, _request(bridge, hardware))
        ioctl(sock, _SIOCBRADDIF, _request(bridge, pack("i", socket.if_nametoindex(port))))


def remove_port(bridge: str, port: str) -> None:
    """Takes `port` out of the bridge; one that is no port of it is fine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            ioctl(sock, _SIOCBRDELIF, _request(bridge, pack("i", socket.if_nametoindex(port))))
        except OSError:
            pass


def quiet_ipv6(name: str) -> None:
    """A bridge port has no addresses of its own."""
    write_setting(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "1")


def is_hardware(name: str) -> bool:
    """Whether a link is a NIC (has a device behind it) and not something made by software."""
    return os.path.exists(f"/sys/class/net/{name}/device")


def bus_address(name: str) -> str:
    """The address of the NIC's device on its bus, such as `0000:00:03.0`."""
    path = os.path.realpath(f"/sys/class/net/{name}/device")
    parts = [part for part in path.split("/") if part.count(":") == 2 and "." in part]
    return parts[-1] if parts else os.path.basename(path)
