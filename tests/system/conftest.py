"""What every test with the booted image shares: the image, built once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from thimble.image.build import BuildOptions, build
from thimble.image.progress import on_stderr


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.timeout(900))
            if os.geteuid():
                item.add_marker(pytest.mark.skip(reason="needs root, to make guests"))


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(BuildOptions(profile="virtual", out=tmp_path_factory.mktemp("image")), on_stderr).directory
