"""Which modules a device needs: lookup in the driver table (format: driver_table.py). Pure."""

from __future__ import annotations

import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

# Drivers of disks and NICs are loaded first: the host is not ready without them, but without its
# temperature sensors it is.
STORAGE, NETWORK, LATER = 0, 1, 2

_VIRTIO_RANK = {"d00000002": STORAGE, "d00000008": STORAGE, "d00000001": NETWORK}
# Buses that lead to more devices (USB, bridges) count as storage, or the state partition would be missed.
_PCI_RANK = {"bc01": STORAGE, "bc02": NETWORK, "bc0Csc03": STORAGE, "bc08sc05": STORAGE, "bc0Csc06": NETWORK}
_BUS_RANK = {
    "scsi": STORAGE,
    "nvme": STORAGE,
    "usb": STORAGE,
    "vmbus": STORAGE,
    "xen": STORAGE,
    "mdio": NETWORK,
}


class DriverTable:
    """The driver table with its lookups. `raw` is what `marshal` read.

    A bus is unpacked when it is first looked for, and stays so: a megabyte. PID 1 has its children do that.
    """

    __slots__ = ("_buses", "_packed", "lengths", "modules", "names")

    def __init__(self, raw: Mapping[str, Any]) -> None:
        if raw.get("format") != 2:
            raise ValueError("driver table has format {!r}, this PID 1 reads 2".format(raw.get("format")))
        self.modules: dict[str, tuple[str, tuple[str, ...]]] = raw["modules"]
        self.names: dict[str, tuple[str, ...]] = raw["names"]
        self._packed: dict[str, bytes] = raw["buses"]
        self._buses: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {}
        self.lengths: dict[str, tuple[int, ...]] = raw["lengths"]

    def drivers_for(self, modalias: str) -> list[str]:
        """Modules that claim this device, without their dependencies; empty if none does."""
        bus, _, body = modalias.partition(":")
        if bus not in self._packed:
            return list(self.names.get(modalias.replace("_", "-"), ()))
        if bus not in self._buses:
            self._buses[bus] = marshal.loads(self._packed[bus])
        entries = self._buses[bus]
        if bus == "acpi":
            return [m for part in body.split(":") if part for _, m in entries.get(part, ())]
        found: list[str] = []
        for length in self.lengths[bus]:
            for rest, module in entries.get(body[:length], ()):
                if module not in found and glob_matches(rest, body[length:]):
                    found.append(module)
        return found

    def resolve(self, name: str) -> list[str]:
        """Modules meant by a name as modprobe knows it: a module, a plain alias, or a modalias."""
        plain = name.replace("-", "_")
        if plain in self.modules:
            return [plain]
        if ":" in name:
            return self.drivers_for(name)
        return list(self.names.get(name.replace("_", "-"), ()))

    def load_order(self, modules: Iterable[str]) -> list[str]:
        """These modules and all they need, each once, in an order that works; unknown ones left out."""
        order: list[str] = []
        for module in modules:
            if module in self.modules:
                order += [item for item in (*self.modules[module][1], module) if item not in order]
        return order


def rank(modalias: str) -> int:
    """STORAGE, NETWORK or LATER, from the alias alone."""
    bus, _, body = modalias.partition(":")
    if bus == "virtio":
        return _VIRTIO_RANK.get(body[:9], LATER)
    if bus == "pci":
        at = body.find("bc")
        return min(_PCI_RANK.get(body[at : at + 4], LATER), _PCI_RANK.get(body[at : at + 8], LATER))
    if modalias.startswith("scsi:t-0x05"):  # CD-ROM drives hold no state
        return LATER
    return _BUS_RANK.get(bus, LATER)


def glob_matches(pattern: str, text: str) -> bool:
    """fnmatch for what depmod writes (`*`, `?`, `[1-9]`), without importing `re`."""
    if pattern == "*":
        return True
    if "[" in pattern or "?" in pattern:
        return _backtrack(pattern, text)
    head, *middle = pattern.split("*")
    if not middle:
        return head == text
    tail = middle.pop()
    if not text.startswith(head) or len(text) < len(head) + len(tail) or not text.endswith(tail):
        return False
    at, end = len(head), len(text) - len(tail)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _backtrack(pattern: str, text: str) -> bool:
    tokens = _tokens(pattern)
    at = place = 0
    star = mark = -1
    while at < len(text):
        if place < len(tokens) and tokens[place] == "*":
            star, mark = place, at
            place += 1
        elif place < len(tokens) and _one_matches(tokens[place], text[at]):
            place += 1
            at += 1
        elif star >= 0:
            mark += 1
            place, at = star + 1, mark
        else:
            return False
    return all(token == "*" for token in tokens[place:])


def _tokens(pattern: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    while at < len(pattern):
        end = pattern.find("]", at) if pattern[at] == "[" else at
        if end < 0:
            end = at
        tokens.append(pattern[at : end + 1])
        at = end + 1
    return tokens


def _one_matches(token: str, char: str) -> bool:
    if len(token) == 1:
        return token in ("?", char)
    body = token[1:-1]
    at = 0
    while at < len(body):
        if body[at + 1 : at + 2] == "-" and at + 2 < len(body):
            if body[at] <= char <= body[at + 2]:
                return True
            at += 3
        else:
            if body[at] == char:
                return True
            at += 1
    return False


EMPTY = DriverTable({"format": 2, "modules": {}, "names": {}, "buses": {}, "lengths": {}})
