"""The kernel's small text files, read so that a missing or failing one is an empty answer and no error."""

from __future__ import annotations

from pathlib import Path


def word(path: Path) -> str:
    """The file's text on one line, without what does not print; "" when it cannot be read."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    return "".join(mark for mark in text.strip("\0 \n\t") if mark.isprintable()).strip()


def number(path: Path) -> int | None:
    """A whole number, decimal or 0x…; None when there is none."""
    try:
        return int(word(path), 0)
    except ValueError:
        return None


def link_name(path: Path) -> str:
    """The last part of what a symbolic link leads to; "" without one."""
    try:
        return path.readlink().name
    except OSError:
        return ""


def entries(path: Path) -> list[Path]:
    """What is in a directory, by name; nothing when it cannot be read."""
    try:
        return sorted(path.iterdir())
    except OSError:
        return []
