"""Network links: read and changed by `ip` with JSON, and by a few ioctls where a start must not wait.

netdevice(7), bridge ioctls of linux/if_bridge.h, Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem
from thimble.sys import command, files

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCSIFHWADDR = 0x8924
_SIOCBRADDIF = 0x89A2
_TUNSETIFF = 0x400454CA
_IFF_UP = 1
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_ARPHRD_ETHER = 1


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A link as it is. `addresses`: global IPv4 and IPv6 with prefix, `10.0.0.1/24`."""

    name: str
    kind: str = ""  # bridge, tun, vlan, …; empty: a device
    up: bool = False
    master: str = ""
    alias: str = ""
    ether: bool = False
    addresses: tuple[str, ...] = ()


class _Info(msgspec.Struct, frozen=True):
    info_kind: str = ""


class _Address(msgspec.Struct, frozen=True):
    local: str = ""
    prefixlen: int = 0
    scope: str = ""


class _Line(msgspec.Struct, frozen=True):
    ifname: str = ""
    flags: tuple[str, ...] = ()
    master: str = ""
    ifalias: str = ""
    link_type: str = ""
    linkinfo: _Info = _Info()
    addr_info: tuple[_Address, ...] = ()


async def links() -> dict[str, Link]:
    """Every link of this network namespace by name. Raises `Problem`."""
    result = await command.run(["ip", "-j", "-d", "address", "show"])
    lines = msgspec.json.decode(result.stdout or b"[]", type=list[_Line])
    return {line.ifname: _link(line) for line in lines if line.ifname}


def _link(line: _Line) -> Link:
    return Link(
        name=line.ifname,
        kind=line.linkinfo.info_kind,
        up="UP" in line.flags,
        master=line.master,
        alias=line.ifalias,
        ether=line.link_type == "ether",
        addresses=tuple(f"{a.local}/{a.prefixlen}" for a in line.addr_info if a.scope == "global"),
    )


async def batch(lines: list[str]) -> None:
    """Run `ip` commands in order up to the first that fails. Raises `Problem`."""
    result = await command.run(["ip", "-batch", "-"], stdin="\n".join(lines).encode() + b"\n", check=False)
    if result.code == 0:
        return
    said = [
        line.removeprefix("RTNETLINK answers: ").removeprefix("Error: ")
        for line in result.stderr.decode(errors="replace").splitlines()
        if not line.startswith("Command failed")
    ]
    why = said[-1] if said else result.last_words
    if "not permitted" in why:
        why += "; run the agent as root"
    raise Problem(Code.FAILED, f"ip: {why}")


def open_tap(name: str, bridge: str, mac: str) -> int:
    """A new tap `name` on `bridge`, up; it lives as long as somebody holds the descriptor. Raises `Problem`.

    `mac` is the tap's own, not the guest's.
    """
    descriptor = -1
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        with suppress(OSError):  # no IPv6 on this host: nothing to switch off
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as door:
            raw = bytes.fromhex(mac.replace(":", ""))
            fcntl.ioctl(door, _SIOCSIFHWADDR, struct.pack("16sH6s16x", name.encode(), _ARPHRD_ETHER, raw))
            index = socket.if_nametoindex(name)
            fcntl.ioctl(door, _SIOCBRADDIF, struct.pack("16si20x", bridge.encode(), index))
            _up(door, name)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise _tap_problem(error, name, bridge) from error
    return descriptor


def open_vhost() -> int | None:
    """`/dev/vhost-net`, or None where the kernel has none: QEMU then moves the packets itself."""
    try:
        return os.open("/dev/vhost-net", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None


def _up(door: socket.socket, name: str) -> None:
    answer = fcntl.ioctl(door, _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
    (flags,) = struct.unpack_from("H", answer, 16)
    fcntl.ioctl(door, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP))


def _tap_problem(error: OSError, name: str, bridge: str) -> Problem:
    what = f"cannot make the port {name} on {bridge}"
    if error.errno == errno.EBUSY:
        return Problem(Code.IN_USE, f"{what}: it exists already", hint="Does its VM still run?")
    if error.errno in (errno.EPERM, errno.EACCES):
        return Problem(Code.UNSUPPORTED, f"{what}: no permission", hint="Run the agent as root.")
    if error.errno in (errno.ENOENT, errno.ENXIO):
        return Problem(Code.UNSUPPORTED, f"{what}: no /dev/net/tun", hint="Load the kernel module tun.")
    return files.problem(error, what)
