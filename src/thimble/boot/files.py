"""Writing small files: kernel settings, and files in RAM that others read while they are replaced."""

from __future__ import annotations

import json
import os


def write_setting(path: str, text: str) -> None:
    """Writes a sysctl or sysfs file; a kernel without it is fine."""
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        pass


def replace_file(path: str, text: str, mode: int = 0o644) -> None:
    """Replaces a file in one step; readers see the old one or the new one."""
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.chmod(f"{path}.new", mode)
    os.replace(f"{path}.new", path)


def write_json(path: str, value: object) -> None:
    """Replaces a JSON file in one step."""
    replace_file(path, json.dumps(value, indent=1))
