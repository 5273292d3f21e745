"""IPv4 subnets and what is where in them. Pure.

192.168.77.0/24    .1 the gateway    .2 … .204 VMs, by their MAC    .205 … .254 anybody else, by DHCP
"""

from __future__ import annotations

from zlib import crc32

import msgspec

from thimble.core.problem import Code, Problem

PREFIX_MIN = 8
PREFIX_MAX = 28


class Subnet(msgspec.Struct, frozen=True):
    """`base` as a number, `prefix` in bits."""

    base: int
    prefix: int

    def __str__(self) -> str:
        return f"{show(self.base)}/{self.prefix}"

    @property
    def size(self) -> int:
        return 1 << (32 - self.prefix)

    @property
    def gateway(self) -> str:
        return show(self.base + 1)

    @property
    def cidr(self) -> str:
        """The gateway's address with the prefix, as put on the bridge."""
        return f"{self.gateway}/{self.prefix}"

    @property
    def netmask(self) -> str:
        return show(0xFFFFFFFF << (32 - self.prefix) & 0xFFFFFFFF)

    @property
    def dynamic(self) -> tuple[str, str]:
        """First and last address for those that are no VM of ours."""
        return show(self.base + self.size - 1 - self._dynamic_count), show(self.base + self.size - 2)

    @property
    def _dynamic_count(self) -> int:
        return min(50, (self.size - 3) // 4)

    @property
    def static_count(self) -> int:
        return self.size - 3 - self._dynamic_count

    def holds(self, address: str) -> bool:
        number = number_of(address)
        return number is not None and self.base <= number < self.base + self.size

    def overlaps(self, other: Subnet) -> bool:
        shorter = min(self.prefix, other.prefix)
        return shorter == 0 or self.base >> (32 - shorter) == other.base >> (32 - shorter)


def show(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def number_of(address: str) -> int | None:
    """`10.0.0.1` as a number; None when it is no IPv4 address."""
    words = address.split(".")
    if len(words) != 4 or not all(
        w.isascii() and w.isdigit() and len(w) <= 3 and int(w) < 256 for w in words
    ):
        return None
    return sum(int(word) << shift for word, shift in zip(words, (24, 16, 8, 0), strict=True))


def parse(text: str) -> Subnet | None:
    """`10.1.0.0/16`; None when it is not the first address of a subnet and a prefix."""
    address, slash, prefix = text.partition("/")
    base = number_of(address)
    if not slash or base is None or not (prefix.isascii() and prefix.isdigit()) or int(prefix) > 32:
        return None
    found = Subnet(base, int(prefix))
    return found if base % found.size == 0 else None


def choose(taken: list[Subnet], seed: int) -> Subnet | None:
    """A free 192.168.x.0/24, tried from x = 64 + `seed` on; None when all overlap with `taken`."""
    for step in range(192):
        found = Subnet((192 << 24) + (168 << 16) + ((64 + (seed + step) % 192) << 8), 24)
        if not any(found.overlaps(other) for other in taken):
            return found
    return None


def address_for(subnet: Subnet, mac: str, taken: set[str]) -> str:
    """The address of a VM's NIC: by its MAC, or the next free one. Raises `Problem` when all are taken."""
    count = subnet.static_count
    start = crc32(mac.lower().encode()) % count
    for step in range(count):
        address = show(subnet.base + 2 + (start + step) % count)
        if address not in taken:
            return address
    raise Problem(Code.IN_USE, f"all {count} addresses of {subnet} are taken")
