"""The options of `thimble vm create` and `change` → the fields of `VmCreate` and `VmChange`. Pure.

`given` is what click read, by the options' names; `base` the fields of the --file; `read` gives a file's
text. What was typed beats the file; what is nested (direct boot, autostart, first-boot data) is altered, not
replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from thimble.cli.vm_parse import cdrom, disk, edited, kept_cdrom, kept_disk, kept_nic, memory_mib, nic
from thimble.contract.vm import Firmware, Vm
from thimble.core.problem import Code, Problem

Words = dict[str, Any]
Read = Callable[[str], str]


def creation(given: Words, base: Words, read: Read) -> Words:
    """The fields of `VmCreate`: those of the file, then the options typed."""
    words = {**base, **_common(given, base.get("direct"), base.get("autostart"))}
    words |= {key: given[key] for key in ("name", "machine", "datastore", "start") if given[key] is not None}
    if "name" not in words:
        raise Problem(Code.INVALID, "the VM needs a name", hint="thimble vm create NAME …")
    for field, parse in (("disks", disk), ("nics", nic), ("cdroms", cdrom)):
        if given[field]:
            words[field] = [msgspec.to_builtins(parse(text)) for text in given[field]]
    words |= {device.replace("-", "_"): False for device in given["without"]}
    if seed := _seed(given, base.get("seed"), read):
        words["seed"] = seed
    if words.get("direct") and "firmware" not in words:
        words["firmware"] = Firmware.DIRECT.value
    return words


def alteration(given: Words, base: Words, seen: Vm, read: Read) -> Words:
    """The fields of `VmChange`, for the VM as it was `seen`."""
    direct = msgspec.to_builtins(seen.direct) if seen.direct else None
    words = {**base, **_common(given, direct, msgspec.to_builtins(seen.autostart))}
    if given["rename"]:
        words["name"] = given["rename"]
    words |= {device.replace("-", "_"): True for device in given["with_"]}
    words |= {device.replace("-", "_"): False for device in given["without"]}
    if seed := _seed(given, msgspec.to_builtins(seen.seed) if seen.seed else None, read):
        words["seed"] = seed
    disks = edited("disk", map(kept_disk, seen.disks), map(disk, given["add_disk"]), given["remove_disk"])
    nics = edited("NIC", map(kept_nic, seen.nics), map(nic, given["add_nic"]), given["remove_nic"])
    drives = trays(seen, given["insert"], given["eject"])
    for field, devices in (("disks", disks), ("nics", nics), ("cdroms", drives)):
        if devices is not None:
            words[field] = msgspec.to_builtins(devices)
    return words


def trays(seen: Vm, insert: tuple[str, ...], eject: tuple[str, ...]) -> tuple[Any, ...] | None:
    """The CD-ROM drives after inserting and ejecting; None when nothing changes."""
    if not insert and not eject:
        return None
    drives = {drive.name: kept_cdrom(drive) for drive in seen.cdroms}
    changes: list[tuple[str, str | None]] = [(name, None) for name in eject]
    for text in insert:
        drive, equals, medium = text.partition("=")
        changes.append((drive, medium) if equals else (next(iter(drives), ""), text))
    for name, image in changes:
        if name not in drives:
            raise Problem(
                Code.NOT_FOUND,
                f"it has no CD-ROM drive {name!r}",
                hint=f"It has {', '.join(drives) or 'none'}.",
            )
        drives[name] = msgspec.structs.replace(drives[name], image=image)
    return tuple(drives.values())


def _common(given: Words, direct: Any, autostart: Any) -> Words:
    """What create and change have in common; nested ones are altered, not replaced."""
    words = {
        key: given[key]
        for key in ("description", "vcpus", "cpu", "firmware", "on_crash", "host_shutdown")
        if given[key] is not None
    }
    if given["memory"] is not None:
        words["memory_mib"] = memory_mib(given["memory"])
    boot = {key: given[key] for key in ("kernel", "initrd", "cmdline") if given[key] is not None}
    if boot:
        words["direct"] = {**(direct or {}), **boot}
    start = {
        key: given[name]
        for key, name in (
            ("enabled", "autostart"),
            ("order", "autostart_order"),
            ("delay_s", "autostart_delay"),
        )
        if given[name] is not None
    }
    if start:
        words["autostart"] = {"enabled": True, **(autostart or {}), **start}
    return words


def _seed(given: Words, old: Any, read: Read) -> Words | None:
    """First-boot data, or None when nothing of it was typed."""
    words: dict[str, Any] = {
        key: given[key]
        for key in ("hostname", "user", "password_hash", "address", "gateway")
        if given[key] is not None
    }
    if given["ssh_keys"]:
        words["ssh_keys"] = [key for text in given["ssh_keys"] for key in _public_keys(text, read)]
    if given["dns"]:
        words["dns"] = list(given["dns"])
    if given["user_data"]:
        words["user_data"] = read(given["user_data"])
    if given["seed_method"]:
        words["method"] = given["seed_method"]
    return {**(old or {}), **words} if words else None


def _public_keys(text: str, read: Read) -> list[str]:
    """The keys in a file, or the key typed. A private key is refused before it leaves this machine."""
    content = text if text.startswith(("ssh-", "ecdsa-", "sk-")) else read(text)
    if "PRIVATE KEY" in content:
        raise Problem(Code.INVALID, f"{text} is a private key", hint=f"Give its public half, {text}.pub.")
    keys = [line.strip() for line in content.splitlines() if line.strip() and not line.startswith("#")]
    if not keys:
        raise Problem(Code.INVALID, f"{text} holds no key")
    return keys
