"""Passwords, and what is kept of them: scrypt (RFC 7914) with its parameters beside the hash.

    scrypt$14$8$1$<salt, hex>$<hash, hex>        log2 N, r, p

Full strength costs 16 MiB and 50 ms on a plain CPU. A password made here has 60 random bits, so nobody
guesses it at any price: it is hashed cheaply, since that happens on the way to the first "ready".
"""

from __future__ import annotations

from collections.abc import Callable

from thimble.core.problem import Code, Problem

FULL = 14
CHEAP = 6
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # 32, without I, O, 0 and 1


def generate(entropy: Callable[[int], bytes]) -> str:
    """`XXXX-XXXX-XXXX`, 60 bits, readable from a console and typed without shift mistakes."""
    text = "".join(_ALPHABET[byte & 31] for byte in entropy(12))
    return "-".join((text[:4], text[4:8], text[8:]))


def hashed(password: str, salt: bytes, *, cost: int = FULL) -> str:
    """What to keep of `password`. `salt`: 16 random bytes; `cost`: log2 of scrypt's N."""
    return f"scrypt${cost}$8$1${salt.hex()}${_scrypt(password, salt, cost, 8, 1).hex()}"


def matches(password: str, kept: str) -> bool:
    """Is it that password? Takes the time of one hash whatever the answer."""
    from hmac import compare_digest

    cost, r, p, salt, wanted = _parts(kept)
    return compare_digest(_scrypt(password, salt, cost, r, p), wanted)


def is_weak(kept: str) -> bool:
    """Was it hashed below full strength?"""
    return _parts(kept)[0] < FULL


def is_unused(kept: str) -> bool:
    """Was it made here, at a first boot, and never given yet? Its first use hashes it at full strength."""
    return _parts(kept)[0] == CHEAP


def check_hash(kept: str) -> None:
    """Raises `Problem` INVALID unless `kept` is a hash as `hashed` makes it."""
    try:
        cost, r, p, salt, wanted = _parts(kept)
        if 11 <= cost <= 17 and r == 8 and 1 <= p <= 4 and len(salt) >= 8 and len(wanted) == 32:
            return
    except ValueError:
        pass
    raise Problem(
        Code.INVALID,
        "the configured password hash cannot be used",
        hint="It reads `scrypt$14$8$1$SALT$HASH`, both in hex.",
    )


def _parts(kept: str) -> tuple[int, int, int, bytes, bytes]:
    _, cost, r, p, salt, wanted = kept.split("$")
    return int(cost), int(r), int(p), bytes.fromhex(salt), bytes.fromhex(wanted)


def _scrypt(password: str, salt: bytes, cost: int, r: int, p: int) -> bytes:
    from hashlib import scrypt

    raw = password.encode("utf-8", "surrogatepass")
    return scrypt(raw, salt=salt, n=1 << cost, r=r, p=p, maxmem=256 * r * (1 << cost) + (1 << 20), dklen=32)
