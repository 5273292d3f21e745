"""What all tests share: PATH holds the declared programs and the toolbox's (qemu-img, …) and nothing else;
a test touches only what it made (`guard`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import guard
from pacing import Pacing
from thimble.image import toolbox
from thimble.image.progress import on_stderr

DECLARED = Path(sys.prefix) / "programs" / "dev"


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("any machine", deadline=None)  # how fast a machine is is nobody's fault
    settings.load_profile("any machine")
    if not DECLARED.is_dir():
        raise pytest.UsageError(f"{DECLARED} is missing: ./test makes it (tools/prepare.sh)")
    os.environ["PATH"] = str(DECLARED)
    os.environ["PATH"] += f"{os.pathsep}{toolbox.ensure(on_stderr).wrappers}"
    guard.install()
    config.pluginmanager.register(Pacing(), "pacing")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    guard.check()
