"""What every test with the booted image shares: the image, built once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from thimble.image import cache
from thimble.image.build import BuildOptions, build
from thimble.image.progress import on_stderr


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(900))
            if os.geteuid():
                item.add_marker(pytest.mark.skip(reason="needs root, to make guests"))


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Made once for all workers of a run; nobody changes it."""
    base = tmp_path_factory.getbasetemp()
    out = (base if worker_id == "master" else base.parent) / "image"
    with cache.locked(out):
        if not (out / "virtual" / "manifest.json").exists():
            build(BuildOptions(profile="virtual", out=out), on_stderr)
    return out / "virtual"
