"""The console's escape key: what a person's typing means, byte by byte. Pure.

    typing ──Ctrl-]──► escaped ──.──► Leave          (also q)
       ▲                  ├──r──► Resize             tell the guest how large this terminal is
       │                  ├──?──► Help
       │                  ├──Ctrl-]──► one Ctrl-] to the guest
       └──────────────────┴── anything else is dropped, and Help says what there is

A key may come in any pieces, also the escape and its letter apart.
"""

from __future__ import annotations

from enum import Enum

ESCAPE = 0x1D  # Ctrl-]

HELP = "Ctrl-] then: . leaves, r tells the guest this terminal's size, Ctrl-] sends one, ? shows this"


class Key(Enum):
    """What is not for the guest."""

    LEAVE = "leave"
    RESIZE = "resize"
    HELP = "help"


KEYS = {ord("."): Key.LEAVE, ord("q"): Key.LEAVE, ord("r"): Key.RESIZE, ord("R"): Key.RESIZE}


class EscapeParser:
    """Feed it what is typed; it returns what to do, in order: bytes for the guest, or a `Key`."""

    def __init__(self) -> None:
        self._escaped = False

    def feed(self, typed: bytes) -> list[bytes | Key]:
        """Nothing after a `LEAVE` is looked at."""
        actions: list[bytes | Key] = []
        plain = bytearray()
        for byte in typed:
            if not self._escaped:
                self._escaped = byte == ESCAPE
                if not self._escaped:
                    plain.append(byte)
                continue
            self._escaped = False
            if byte == ESCAPE:
                plain.append(byte)
                continue
            if plain:
                actions.append(bytes(plain))
                plain.clear()
            actions.append(KEYS.get(byte, Key.HELP))
            if actions[-1] is Key.LEAVE:
                return actions
        return [*actions, bytes(plain)] if plain else actions


def resize_command(rows: int, columns: int) -> bytes:
    """What a guest's shell is told, as typed there."""
    return f"stty rows {rows} cols {columns}\r".encode()
