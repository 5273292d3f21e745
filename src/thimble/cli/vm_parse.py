"""What is typed about a VM → the contract's types. Pure.

    disk     10G | 10G,image=debian.qcow2,bus=sata | volume=local/data    also format, name, ro
    nic      nat | uplink,mac=52:54:00:…,model=e1000e                     also name
    cdrom    installer.iso                                                also name
    forward  2222:web1:22/tcp                                             port : VM : its port / protocol

Every one raises `Problem` INVALID, with an example of how it should look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from thimble.contract.network import Forward
from thimble.contract.vm import CdromSpec, CdromView, DiskSpec, DiskView, NicSpec, NicView
from thimble.core.problem import Code, Problem, Reason
from thimble.core.units import MIB, parse_size

Wire = TypeVar("Wire")
Named = TypeVar("Named", bound=DiskSpec | NicSpec | CdromSpec)

DISK_KEYS = {"image": "image", "volume": "volume", "format": "format", "bus": "bus", "name": "name"}
NIC_KEYS = {"switch": "switch", "mac": "mac", "model": "model", "name": "name"}
CDROM_KEYS = {"image": "image", "name": "name"}


def disk(text: str) -> DiskSpec:
    """A size first."""
    first, options = _words(text, "--disk", {**DISK_KEYS, "size": "size", "ro": "read_only"})
    size = options.pop("size", first)
    if "read_only" in options:
        options["read_only"] = options["read_only"] in ("", "yes", "on", "true")
    return typed(
        {**options, **({"size_bytes": parse_size(size)} if size else {})}, DiskSpec, f"--disk {text}"
    )


def nic(text: str) -> NicSpec:
    """A switch's name first."""
    first, options = _words(text, "--nic", NIC_KEYS)
    return typed({**({"switch": first} if first else {}), **options}, NicSpec, f"--nic {text}")


def cdrom(text: str) -> CdromSpec:
    """An image first; nothing is an empty tray."""
    first, options = _words(text, "--cdrom", CDROM_KEYS)
    return typed({**({"image": first} if first else {}), **options}, CdromSpec, f"--cdrom {text}")


def _words(text: str, option: str, keys: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """`first,key=value,…` → the first word when it is bare, and the rest by the contract's names."""
    head, *rest = [part.strip() for part in text.split(",")]
    first, options = ("", [head, *rest]) if head.partition("=")[0] in keys else (head, rest)
    found: dict[str, Any] = {}
    for part in options:
        key, _, value = part.partition("=")
        if key not in keys or keys[key] in found:
            raise Problem(
                Code.INVALID,
                f"{option} {text}: {'twice' if key in keys else 'unknown'}: {key!r}",
                hint=f"It understands {', '.join(sorted(keys))}, such as `{option} {EXAMPLES[option]}`.",
            )
        found[keys[key]] = value
    return first, found


EXAMPLES = {"--disk": "10G,image=debian.qcow2", "--nic": "nat", "--cdrom": "installer.iso"}


def forward(text: str) -> Forward:
    """`2222:web1:22/tcp`; tcp when no protocol is named."""
    route, _, protocol = text.partition("/")
    parts = route.split(":")
    if len(parts) != 3 or not parts[0].isdecimal() or not parts[2].isdecimal():
        raise Problem(
            Code.INVALID,
            f"{text!r} is not a forward",
            hint="Write PORT:VM:ITS-PORT/tcp, such as 2222:web1:22/tcp.",
        )
    words = {"port": int(parts[0]), "vm": parts[1], "to_port": int(parts[2]), "protocol": protocol or "tcp"}
    return typed(words, Forward, f"--forward {text}")


def memory_mib(text: str) -> int:
    """MiB of `1G`, rounded down; a bare number is MiB already."""
    return parse_size(f"{text}M" if text.strip().isdecimal() else text) // MIB


def seconds(text: str) -> float:
    """Of `90`, `90s`, `15m`, `12h`, `30d`, `2y`."""
    factor = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}.get(text[-1:].lower())
    try:
        number = float(text if factor is None else text[:-1])
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e12:
        raise Problem(
            Code.INVALID, f"{text!r} is not a length of time", hint="Write it like 90s, 15m, 12h or 30d."
        )
    return number * (factor or 1)


def typed(words: Mapping[str, Any], wanted: type[Wire], where: str) -> Wire:
    """`words` as `wanted`. Raises `Problem` INVALID with the path of what is wrong."""
    try:
        return msgspec.convert(words, wanted)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        reason = Reason(message=message, code=Code.INVALID, path=path.removesuffix("`"))
        raise Problem(Code.INVALID, f"{where}: {message}", reasons=(reason,) if path else ()) from error


def spec_file(name: str, text: str) -> dict[str, Any]:
    """The table in a file, TOML when its name ends so, else JSON. Raises `Problem` MALFORMED."""
    import tomllib

    try:
        read = tomllib.loads(text) if name.endswith(".toml") else msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError) as error:
        raise Problem(Code.MALFORMED, f"cannot read {name}: {error}") from error
    if not isinstance(read, dict):
        raise Problem(Code.MALFORMED, f"{name} holds no table of fields")
    return read


def kept_disk(view: DiskView) -> DiskSpec:
    """An existing disk, as a change names it to keep it."""
    return DiskSpec(
        name=view.name, volume=view.volume, format=view.format, bus=view.bus, read_only=view.read_only
    )


def kept_nic(view: NicView) -> NicSpec:
    """An existing NIC, likewise."""
    return NicSpec(name=view.name, switch=view.switch, mac=view.mac, model=view.model)


def kept_cdrom(view: CdromView) -> CdromSpec:
    """An existing drive, likewise."""
    return CdromSpec(name=view.name, image=view.image)


def edited(
    kind: str, old: Iterable[Named], add: Iterable[Named], remove: Iterable[str]
) -> tuple[Named, ...] | None:
    """The devices after a change; None when there is none. Raises `Problem` NOT_FOUND for an unknown name."""
    present, gone, new = list(old), set(remove), list(add)
    if unknown := gone - {device.name for device in present}:
        has = ", ".join(device.name for device in present) or "none"
        raise Problem(Code.NOT_FOUND, f"it has no {kind} {sorted(unknown)[0]!r}", hint=f"It has {has}.")
    if not gone and not new:
        return None
    return (*[device for device in present if device.name not in gone], *new)
