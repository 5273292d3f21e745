"""What the loaders read: systemd-boot's entries, GRUB's menu and its environment. Pure.

Trials. UEFI: an entry's file name counts, `thimble-b+3.conf` → `thimble-b+2-1.conf` → …, by systemd-boot,
which sorts an entry with none left behind all others (Boot Loader Specification, boot counting).
BIOS: GRUB counts `tries` down in its environment block and starts the default slot when none is left. Either
way the count is on the medium before the slot runs, so that no way of dying can escape it.
"""

from __future__ import annotations

import re

import msgspec

from thimble.core.problem import Code, Problem
from thimble.medium.uki import SECTOR, Uki

SLOTS = ("a", "b")
TRIES = 3
ENTRIES = "loader/entries"
ENVIRONMENT = "grub/grubenv"
ENVIRONMENT_BYTES = 1024
_NAME = re.compile(r"thimble-([ab])(?:\+(\d+)(?:-(\d+))?)?\.conf", re.IGNORECASE)
_SIGNATURE = "# GRUB Environment Block\n"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The name of an entry's file, understood. `left` is None when it is no trial, or was confirmed."""

    slot: str
    left: int | None = None
    done: int = 0

    @property
    def name(self) -> str:
        count = "" if self.left is None else f"+{self.left}" + (f"-{self.done}" if self.done else "")
        return f"thimble-{self.slot}{count}.conf"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What GRUB starts: `default`, or `trial` as long as tries are left."""

    default: str
    trial: str = ""
    tries: int = 0


def other(slot: str) -> str:
    return "b" if slot == "a" else "a"


def slot_path(slot: str) -> str:
    return f"thimble/{slot}.efi"


def parse_entry(name: str) -> Entry | None:
    """The entry of this file name (any path before it is ignored); None for files of others."""
    match = _NAME.fullmatch(name.replace("\\", "/").rpartition("/")[2])
    if not match:
        return None
    left = None if match[2] is None else int(match[2])
    return Entry(slot=match[1].lower(), left=left, done=int(match[3] or 0))


def entry_text(slot: str, *, number: int, version: str) -> str:
    """`number` counts installations: of two good entries the later one starts, whatever their versions."""
    return (
        f"title Thimble {version} (slot {slot})\nsort-key thimble\nversion {number}\nefi /{slot_path(slot)}\n"
    )


def entry_number(text: str) -> int:
    """The number of an entry's text; 0 when it has none, as a half-written one."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "version" and value.strip().isdecimal():
            return int(value)
    return 0


def loader_conf(*, enroll: bool = False) -> str:
    """No menu unless a key is held; nobody edits the command line there.

    `enroll`: keys beside it are put into a firmware that is in setup mode (systemd-boot, loader.conf(5)).
    """
    return f"timeout 0\neditor no\nconsole-mode keep\nsecure-boot-enroll {'force' if enroll else 'off'}\n"


def grub_menu() -> str:
    """`/grub/grub.cfg`: counts a trial, then starts its slot; the other one when that file is unreadable."""
    count = "".join(
        f'  {"el" if left < TRIES else ""}if [ "$tries" = {left} ]; then set tries={left - 1}; '
        "set slot=$trial; set word=thimble.trial=1; save_env tries\n"
        for left in range(TRIES, 0, -1)
    )
    return (
        "if serial --unit=0 --speed=115200; then terminal_output console serial; fi\n"
        "load_env\n"
        # which of several media this is: the kernel cannot know it from a BIOS
        "set from=\nif probe --set=part --part-uuid $root; then set from=thimble.boot=$part; fi\n"
        'set slot=a\nif [ "$default" = b ]; then set slot=b; fi\nset word=\n'
        f'if [ -n "$trial" ]; then\n{count}  fi\nfi\n'
        "if source /thimble/$slot.cfg; then boot; fi\n"
        'if [ "$slot" = a ]; then set slot=b; else set slot=a; fi\nset word=\n'
        "if source /thimble/$slot.cfg; then boot; fi\n"
    )


def grub_slot(slot: str, uki: Uki, command_line: str) -> str:
    """`/thimble/SLOT.cfg`: kernel and initrd are ranges of sectors within the slot's file."""
    kernel, initrd = (_sectors(uki, name) for name in (".linux", ".initrd"))
    return (
        f"loopback {slot} /{slot_path(slot)}\n"
        f"linux ({slot}){kernel} {_quoted(command_line)} thimble.slot={slot} $word $from\n"
        f"initrd ({slot}){initrd}\n"
    )


def environment(choice: Choice) -> bytes:
    """GRUB's environment block. All that varies is in the first sector: writing it changes one sector."""
    text = f"{_SIGNATURE}default={choice.default}\ntrial={choice.trial}\ntries={choice.tries}\n"
    return text.encode().ljust(ENVIRONMENT_BYTES, b"#")


def parse_environment(block: bytes) -> Choice:
    """What GRUB would start. A damaged block reads as GRUB reads it: slot a, no trial."""
    if not block.startswith(_SIGNATURE.encode()):
        return Choice(default="a")
    lines = (line.partition("=") for line in block.decode("ascii", "replace").splitlines())
    values = {key: value for key, _, value in lines}
    default, trial, tries = (values.get(key, "") for key in ("default", "trial", "tries"))
    return Choice(
        default="b" if default == "b" else "a",
        trial=trial if trial in SLOTS else "",
        tries=int(tries) if tries.isdecimal() else 0,
    )


def _sectors(uki: Uki, name: str) -> str:
    section = uki.sections[name]
    if section.offset % SECTOR:
        raise Problem(
            Code.INVALID,
            f"this image cannot be started by a BIOS: {name} does not begin on a sector",
            hint="Build it with this project's own builder.",
        )
    return f"{section.offset // SECTOR}+{-(-section.size // SECTOR)}"


def _quoted(command_line: str) -> str:
    """GRUB's script language would take these for itself."""
    return re.sub(r"([\\$;|&<>{}\"'#])", r"\\\1", command_line)
