"""What all tests share: the toolbox programs stand in where the machine has none of its own (qemu-img, …)."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from thimble.image import toolbox
from thimble.image.progress import on_stderr


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("any machine", deadline=None)  # how fast a machine is is nobody's fault
    settings.load_profile("any machine")
    wrappers = toolbox.ensure(on_stderr).wrappers
    os.environ["PATH"] = f"{os.environ['PATH']}{os.pathsep}{wrappers}"
