"""Addresses as text and bytes, without importing `ipaddress`, which is slow to load. Pure."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton


def is_v4(text: str) -> bool:
    """Dotted quad, nothing shorter."""
    try:
        return len(inet_pton(AF_INET, text)) == 4
    except (OSError, ValueError):
        return False


def is_v6(text: str) -> bool:
    """IPv6 without zone and brackets."""
    try:
        return len(inet_pton(AF_INET6, text)) == 16
    except (OSError, ValueError):
        return False


def text_of(packed: bytes) -> str:
    """4 or 16 bytes as text."""
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def mac_text(packed: bytes) -> str:
    """`52:54:00:12:34:56`"""
    return packed[:6].hex(":")


def prefix_of_netmask(netmask: str, client: str) -> int | None:
    """Prefix length from a dotted netmask or a number; empty means by class, or 64. None if wrong."""
    v6 = is_v6(client)
    if not netmask:
        first = 0 if v6 else int(client.split(".")[0])
        return 64 if v6 else 8 if first < 128 else 16 if first < 192 else 24
    if netmask.isascii() and netmask.isdigit():
        return int(netmask) if 0 < int(netmask) <= (128 if v6 else 32) else None
    if v6 or not is_v4(netmask):
        return None
    bits = f"{int.from_bytes(inet_pton(AF_INET, netmask), 'big'):032b}"
    return bits.count("1") if "01" not in bits and "1" in bits else None


def is_link_local(text: str) -> bool:
    """An address that other machines cannot use to reach the host."""
    return text.startswith(("fe80:", "169.254."))
