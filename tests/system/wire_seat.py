"""A computer on a lab's wire: a network namespace with a card whose frames are the wire's.

Run as a program it is that computer's card: `wire_seat.py PORT ADDRESS/PREFIX`. Root's.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
from contextlib import suppress

GROUP, HERE = "230.84.77.66", "127.0.0.1"
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x2, 0x1000
SIOCGIFHWADDR = 0x8927
CARD = "card0"


class WireSeat:
    """Commands that run there."""

    def __init__(self, port: int, address: str) -> None:
        self._card = subprocess.Popen(
            [sys.executable, __file__, str(port), address], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._card.stdout is not None
        assert self._card.stdout.readline() == b"ready\n"

    def __enter__(self) -> WireSeat:
        return self

    def __exit__(self, *_: object) -> None:
        self._card.kill()
        self._card.wait()

    def run(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--net=/proc/{self._card.pid}/ns/net", *argv],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )


def main(port: int, address: str) -> None:
    told = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    told.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    told.bind((GROUP, port))
    joins = socket.inet_aton(GROUP) + socket.inet_aton(HERE)
    told.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joins)
    told.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HERE))
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace")
    card = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(card, TUNSETIFF, struct.pack("16sH14x", CARD.encode(), IFF_TAP | IFF_NO_PI))
    for words in (f"addr add {address} dev {CARD}", f"link set {CARD} up", "link set lo up"):
        subprocess.run(["ip", *words.split()], check=True)
    with socket.socket() as asking:  # /sys still shows the cards of where we came from
        own = fcntl.ioctl(asking, SIOCGIFHWADDR, CARD.encode().ljust(40, b"\0"))[18:24]
    print("ready", flush=True)
    while True:
        for ready in select.select([card, told], [], [])[0]:
            if ready == card:
                told.sendto(os.read(card, 65536), (GROUP, port))
                continue
            frame = told.recv(65536)
            if frame[6:12] != own:  # what was sent comes back as well
                with suppress(OSError):
                    os.write(card, frame)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
