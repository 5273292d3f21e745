"""The pure files stay pure: no clock, no randomness, no I/O among their imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "thimble"
PURE_NAMES = {
    "admit",
    "chain",
    "diagnosis",
    "layout",
    "loglines",
    "plan",
    "redact",
    "render",
    "rules",
    "smbios",
    "view",
}
#: All of the console UI but what touches the terminal, the network and PID 1; and single files.
PURE_FILES = {"dcui/" + name for name in ("draw", "model", "pages", "actions", "update")} | {"document/vms"}
PURE_FOLDERS = ("core", "contract", "medium", "vm/record")
FORBIDDEN = {"os", "asyncio", "subprocess", "socket", "time", "random", "secrets", "pathlib.Path.open"}


def pure_files() -> list[Path]:
    return sorted(
        path
        for path in SOURCE.rglob("*.py")
        if path.stem in PURE_NAMES
        or path.stem.startswith(("flow_", "view_"))
        or str(path.relative_to(SOURCE).with_suffix("")) in PURE_FILES
        or str(path.relative_to(SOURCE)).startswith(tuple(f"{folder}/" for folder in PURE_FOLDERS))
    )


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_there_are_pure_files() -> None:
    assert len(pure_files()) > 10


@pytest.mark.parametrize("path", pure_files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_pure_file_imports_nothing_impure(path: Path) -> None:
    assert not imports(path) & FORBIDDEN
