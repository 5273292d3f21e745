"""Is our own API well? Asked at a real one, over TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from api_client import run, served
from api_world import World
from thimble.access.tls import fingerprint
from thimble.deploy.health import api_answers


@pytest.mark.parametrize("fault", ["", "not ready", "another certificate", "nobody"])
def test_our_api_answers_or_what_is_wrong(tmp_path: Path, fault: str) -> None:
    world = World(tmp_path)
    world.ready = fault != "not ready"

    async def story() -> str:
        async with served(world) as wire:
            port, shown = wire.port, fingerprint(tmp_path / "tls" / "certificate.pem")
            if fault == "nobody":
                await wire.server.close(0)
            return await api_answers("127.0.0.1", port, "ab" * 32 if fault.startswith("an") else shown)

    words = {
        "": "",
        "not ready": "answers 503",
        "another certificate": "is somebody else",
        "nobody": "does not answer: cannot reach",
    }[fault]
    why = run(story())
    assert words in why and bool(why) is bool(fault)
