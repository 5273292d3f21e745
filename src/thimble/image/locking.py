"""The lock file's contents: which package, which version, which SHA-256; pure.

`lock.json` names no host: the pins are true wherever the packages come from. `epoch` is the one date that
goes into the image.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pin:
    """One package in exactly one version."""

    name: str
    version: str
    architecture: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """All pins of one suite, by the sets that need them (toolbox, server, virtual)."""

    suite: str
    epoch: int
    sets: dict[str, tuple[Pin, ...]]

    def named(self, name: str) -> tuple[Pin, ...]:
        return self.sets.get(name, ())


def read(text: str) -> Lock:
    """Parse a lock file."""
    raw = json.loads(text)
    sets: dict[str, list[Pin]] = {}
    for entry in raw["packages"]:
        members = entry.pop("sets")
        for name in members:
            sets.setdefault(name, []).append(Pin(**entry))
    return Lock(
        suite=raw["suite"],
        epoch=raw["epoch"],
        sets={name: tuple(sorted(pins)) for name, pins in sets.items()},
    )


def write(lock: Lock) -> str:
    """The text of a lock file, one package a line, so that a refresh reads well as a difference."""
    members: dict[Pin, list[str]] = {}
    for name, pins in sorted(lock.sets.items()):
        for pin in pins:
            members.setdefault(pin, []).append(name)
    lines = [
        json.dumps(
            {
                "name": pin.name,
                "version": pin.version,
                "architecture": pin.architecture,
                "sha256": pin.sha256,
                "sets": names,
            }
        )
        for pin, names in sorted(members.items())
    ]
    head = f'{{"format": 1, "suite": {json.dumps(lock.suite)}, "epoch": {lock.epoch}, "packages": [\n'
    return head + ",\n".join(lines) + "\n]}\n"


def changes(old: Iterable[Pin], new: Iterable[Pin]) -> list[str]:
    """What differs, a line a package: "name 1 → 2", "+ name 2", "- name 1"."""
    before = {pin.name: pin for pin in old}
    after = {pin.name: pin for pin in new}
    lines = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        if was and now:
            lines.append(f"{name} {was.version} → {now.version}")
        else:
            lines.append(f"+ {now}" if now else f"- {was}")
    return lines
