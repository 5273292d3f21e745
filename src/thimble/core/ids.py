"""Names and identities. Ids are made from random bytes handed in, so that this stays pure."""

from __future__ import annotations

from typing import NewType

from thimble.core.problem import Code, Reason

VmId = NewType("VmId", str)
TaskId = NewType("TaskId", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no look-alikes
_HEX = frozenset("0123456789abcdefABCDEF")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")

#: Longest name of anything a person names; fits a host name label and a file name.
NAME_MAX = 63
#: What `name_reasons` lets pass, but for the length, as a regular expression for those who describe it.
NAME_PATTERN = "^[a-z0-9][a-z0-9._-]*$"


def identity(kind: str, entropy: bytes) -> str:
    """`vm-7k3m9q2d`: a kind and 40 bits of `entropy` (5 bytes or more)."""
    number = int.from_bytes(entropy[:5], "big")
    return kind + "-" + "".join(_ALPHABET[number >> shift & 31] for shift in range(35, -5, -5))


def name_reasons(name: str, path: str) -> list[Reason]:
    """Why `name` cannot be one: 1 to 63 of a-z, 0-9, `-`, `.`, `_`, starting with a letter or digit."""
    if not 1 <= len(name) <= NAME_MAX:
        return [Reason(message=f"a name has 1 to {NAME_MAX} characters, this one {len(name)}", path=path)]
    if not set(name) <= _NAME or not name[0].isalnum():
        return [
            Reason(
                message=f"{name!r}: use a-z, 0-9, '-', '.' and '_', starting with a letter or digit",
                code=Code.INVALID,
                path=path,
            )
        ]
    return []


def mac_address(entropy: bytes) -> str:
    """A locally administered unicast MAC in QEMU's well-known range 52:54:00, from 3 bytes."""
    return ":".join(f"{byte:02x}" for byte in b"\x52\x54\x00" + entropy[:3])


def is_mac(text: str) -> bool:
    """Six bytes in hex with colons, in either case."""
    words = text.split(":")
    return len(words) == 6 and all(len(word) == 2 and set(word) <= _HEX for word in words)


def mac_reasons(mac: str, path: str) -> list[Reason]:
    """Why `mac` cannot be that of a network card: not one at all, of a group, or of nobody."""
    if not is_mac(mac):
        return [Reason(message=f"{mac!r} is not a MAC address such as 52:54:00:12:34:56", path=path)]
    if int(mac[:2], 16) & 1 or not mac.strip("0:"):
        return [Reason(message=f"{mac} is not the address of a single card", path=path)]
    return []
