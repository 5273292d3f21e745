"""What is run was declared: tools/programs.txt is the whole PATH, and nobody goes round it."""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path

import pytest

from thimble.image import toolbox

PROJECT = Path(__file__).parents[2]
DECLARED = [
    line.split()[:3]
    for line in (PROJECT / "tools" / "programs.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
#: They run programs of a Debian tree or of the image, which have a PATH of their own.
OTHER_PATHS = {
    "boot/agent.py",
    "boot/children.py",
    "boot/console/sessions.py",
    "guest/rootfs.py",
    "image/apt.py",
}


def test_the_path_holds_the_declared_programs_and_the_toolbox_and_nothing_else() -> None:
    declared, tools = map(Path, os.environ["PATH"].split(os.pathsep))
    assert {path.name for path in declared.iterdir()} == {program for _, program, _ in DECLARED}
    assert tools == toolbox.ensure().wrappers
    assert set(toolbox.WRAPPED) <= {path.name for path in tools.iterdir()}


@pytest.mark.parametrize("program", [program for _, program, _ in DECLARED])
def test_every_declared_program_is_there(program: str) -> None:
    assert shutil.which(program)


def test_each_is_declared_once_and_for_somebody() -> None:
    assert len({program for _, program, _ in DECLARED}) == len(DECLARED)
    assert {who for who, _, _ in DECLARED} == {"run", "dev"}


def test_nobody_looks_for_programs_elsewhere() -> None:
    """A PATH in a child's environment finds what nobody declared."""
    found = set()
    for path in (PROJECT / "src" / "thimble").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            words = (
                [key.value for key in node.keys if isinstance(key, ast.Constant)]
                if isinstance(node, ast.Dict)
                else []
            )
            words += [word.arg for word in node.keywords] if isinstance(node, ast.Call) else []
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if "PATH" in words or "PATH=/" in text or text.startswith("/usr/sbin:"):
                found.add(str(path.relative_to(PROJECT / "src" / "thimble")))
    assert found == OTHER_PATHS
