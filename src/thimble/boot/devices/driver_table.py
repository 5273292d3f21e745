"""Compiles depmod's text files into the driver table of the image. Pure; runs in the image builder only.

The table is one `marshal` file, `/usr/lib/modules/<release>/thimble.drivers`, made by the same Python
version that reads it. It is a dict:

    "format"   2
    "modules"  {name: (path below the modules directory, (names to load before it, in order))}
    "names"    {plain alias such as "fs-vfat" or "nft-expr-masq": (module, ...)}
    "buses"    {bus: marshal of {literal prefix: ((glob for the rest, module), ...)}}
    "lengths"  {bus: (lengths of the prefixes that occur, longest first)}

A modalias `pci:v00008086d00001533sv…` is looked up by cutting its body at each of the few lengths of its
bus, so a device costs three dict lookups and a handful of globs, not one fnmatch per known alias. Each bus is
packed apart: only the child that looks for a bus's drivers unpacks it, and PID 1 keeps a few strings. ACPI
aliases (`acpi*:PNP0C0C:*`) are keyed by the identifier alone. Only modules of the image get in.

Use: `marshal.dumps(compile_table(dep, alias, softdep))`, the arguments being the texts of modules.dep,
modules.alias and modules.softdep made by depmod over exactly the modules of the image.
"""

from __future__ import annotations

import marshal

FORMAT = 2

_GLOB = "*?["
# Buses of devices that no server has, or that are found otherwise.
_SKIPPED_BUSES = ("of", "pcmcia", "spi", "ssb", "bcma", "sdio", "devname", "ieee1394")


def module_name(path: str) -> str:
    """`kernel/drivers/net/virtio_net.ko.xz` → `virtio_net`; the kernel's own spelling has no dashes."""
    return path.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def compile_table(dep: str, alias: str, softdep: str) -> dict[str, object]:
    """The driver table of these modules; aliases of one prefix keep the order of modules.alias."""
    direct = _parse_dep(dep)
    names: dict[str, tuple[str, ...]] = {}
    buses: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {}
    for line in alias.splitlines():
        word, _, rest = line.partition(" ")
        pattern, _, module = rest.rpartition(" ")
        module = module.replace("-", "_")
        if word != "alias" or module not in direct:
            continue
        _add_alias(buses, names, pattern, module)
    before = _parse_softdep(softdep, direct, names)
    modules = {name: (path, _order(name, direct, before)) for name, (path, _) in sorted(direct.items())}
    return {
        "format": FORMAT,
        "modules": modules,
        "names": {key: names[key] for key in sorted(names)},
        "buses": {bus: marshal.dumps(dict(sorted(buses[bus].items()))) for bus in sorted(buses)},
        "lengths": {bus: tuple(sorted(set(map(len, buses[bus])), reverse=True)) for bus in sorted(buses)},
    }


def _parse_dep(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """{module: (path, dependencies as modules.dep gives them: the deepest last)}"""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for line in text.splitlines():
        path, colon, rest = line.partition(":")
        if colon:
            found[module_name(path)] = (path, tuple(module_name(item) for item in rest.split()))
    return found


def _add_alias(
    buses: dict[str, dict[str, tuple[tuple[str, str], ...]]],
    names: dict[str, tuple[str, ...]],
    pattern: str,
    module: str,
) -> None:
    bus, colon, body = pattern.partition(":")
    if not colon:
        names[pattern.replace("_", "-")] = (*names.get(pattern.replace("_", "-"), ()), module)
        return
    bus = bus.rstrip("*")
    if bus in _SKIPPED_BUSES:
        return
    if bus == "acpi":
        body = body.strip("*").strip(":")
    cut = next((at for at, char in enumerate(body) if char in _GLOB), len(body))
    entries = buses.setdefault(bus, {})
    entries[body[:cut]] = (*entries.get(body[:cut], ()), (body[cut:], module))


def _parse_softdep(
    text: str, direct: dict[str, tuple[str, tuple[str, ...]]], names: dict[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """{module: modules to load before it}; a softdep may name an alias or something absent."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 4 or words[0] != "softdep" or "pre:" not in words:
            continue
        wanted = words[words.index("pre:") + 1 :]
        wanted = wanted[: wanted.index("post:")] if "post:" in wanted else wanted
        chosen: list[str] = []
        for item in wanted:
            plain = item.replace("-", "_")
            chosen += [plain] if plain in direct else names.get(item.replace("_", "-"), ())
        found[words[1].replace("-", "_")] = tuple(chosen)
    return found


def _order(
    name: str, direct: dict[str, tuple[str, tuple[str, ...]]], before: dict[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """What to load before `name`, in order, without `name` itself. Cycles of softdeps are cut."""
    order: list[str] = []
    in_progress: set[str] = set()

    def visit(module: str) -> None:
        if module in in_progress or module in order or module not in direct:
            return
        in_progress.add(module)
        for soft in before.get(module, ()):
            visit(soft)
        for hard in reversed(direct[module][1]):
            visit(hard)
        order.append(module)

    visit(name)
    return tuple(order[:-1])
