"""Which kernel modules an image has, in what order they load, and which firmware they ask for; pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverList:
    """The literal lists of one profile (data/drivers.toml)."""

    modules: tuple[str, ...]
    early: tuple[str, ...]
    plain: frozenset[str]


def wanted(profile: str) -> DriverList:
    raw = tomllib.loads(resources.files("thimble.image").joinpath("data/drivers.toml").read_text())
    groups = [*raw["common"].values(), *raw[profile].values()]
    return DriverList(
        modules=tuple(name for group in groups for name in group),
        early=tuple(raw["early"]["modules"]),
        plain=frozenset(map(plain_name, raw["plain"][profile])),
    )


def plain_name(path: str) -> str:
    """ "kernel/drivers/net/virtio_net.ko.xz" → "virtio_net": the kernel's own spelling has no dashes."""
    return path.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """All modules of a kernel: where each lies, what it needs, and what it wants loaded before it."""

    paths: Mapping[str, str]
    hard: Mapping[str, tuple[str, ...]]
    soft: Mapping[str, tuple[str, ...]]
    builtin: frozenset[str]


def graph(dep: str, softdep: str, alias: str, builtin: str) -> Graph:
    """Read what depmod wrote over the whole kernel."""
    paths, hard = {}, {}
    for line in dep.splitlines():
        path, _, rest = line.partition(":")
        paths[plain_name(path)] = path
        hard[plain_name(path)] = tuple(plain_name(item) for item in rest.split())
    names: dict[str, list[str]] = {}
    for line in alias.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "alias" and ":" not in words[1]:
            names.setdefault(words[1].replace("_", "-"), []).append(plain_name(words[2]))
    soft: dict[str, tuple[str, ...]] = {}
    for line in softdep.splitlines():
        words = line.split()
        if len(words) < 3 or words[0] != "softdep":
            continue
        wishes = [word for word in words[2:] if word not in ("pre:", "post:")]
        chosen = [
            m
            for wish in wishes
            for m in (
                [plain_name(wish)] if plain_name(wish) in paths else names.get(wish.replace("_", "-"), [])
            )
        ]
        soft[plain_name(words[1])] = (*soft.get(plain_name(words[1]), ()), *chosen)
    return Graph(
        paths=paths,
        hard=hard,
        soft=soft,
        builtin=frozenset(plain_name(line) for line in builtin.splitlines() if line),
    )


def closure(kernel: Graph, names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(modules to take with all they need, names this kernel has neither as module nor built in)."""
    found: set[str] = set()
    unknown: list[str] = []
    for name in names:
        if "/" in name:
            queue = [module for module, path in kernel.paths.items() if path.startswith(f"kernel/{name}")]
        elif plain_name(name) in kernel.paths:
            queue = [plain_name(name)]
        else:
            queue = []
            if plain_name(name) not in kernel.builtin:
                unknown.append(name)
        while queue:
            module = queue.pop()
            if module not in found and module in kernel.paths:
                found.add(module)
                queue += [*kernel.hard.get(module, ()), *kernel.soft.get(module, ())]
    return tuple(sorted(found)), tuple(unknown)


def load_order(kernel: Graph, names: Iterable[str]) -> tuple[str, ...]:
    """These modules and all they need, what is needed first."""
    order: list[str] = []
    open_: set[str] = set()

    def visit(module: str) -> None:
        if module in open_ or module not in kernel.paths:
            return
        open_.add(module)
        for before in (*kernel.soft.get(module, ()), *reversed(kernel.hard[module])):
            visit(before)
        order.append(module)

    for name in names:
        visit(plain_name(name))
    return tuple(order)


def firmware(module: bytes) -> tuple[str, ...]:
    """The firmware files a module (uncompressed) says it may ask for."""
    return tuple(
        sorted({match.decode() for match in re.findall(rb"(?:^|\0)firmware=([^\0]+)(?=\0)", module)})
    )
