"""What all tests share: the toolbox programs stand in where the machine has none of its own (qemu-img, …)."""

from __future__ import annotations

import os

import pytest

from thimble.image import toolbox
from thimble.image.progress import on_stderr


def pytest_configure(config: pytest.Config) -> None:
    wrappers = toolbox.ensure(on_stderr).wrappers
    os.environ["PATH"] = f"{os.environ['PATH']}{os.pathsep}{wrappers}"
