"""One agent for all tests here, in a network of its own, with the toolbox's QEMU and the tiny guest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_place import Agent, Cli, Place

import blocking
from thimble.client.http import Client
from thimble.guest import tiny
from thimble.guest.tiny import TinyGuest
from thimble.image import toolbox
from thimble.image.progress import on_stderr

#: `fail`, or `tell`: what held up the loop is only shown.
BLOCKING = os.environ.get("THIMBLE_BLOCKING", "fail")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of it is marked `agent`, and left out where it cannot run."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.agent)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(180))
            if os.geteuid():
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def guest() -> TinyGuest:
    return tiny.ensure(on_stderr)


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """A short path, that QEMUs of their own uid may go through."""
    where = Path(tempfile.mkdtemp(prefix="thimble-agent-"))
    where.chmod(0o755)
    yield where
    shutil.rmtree(where, ignore_errors=True)


@pytest.fixture(scope="session")
def place(base: Path) -> Iterator[Place]:
    made = Place(base)
    yield made
    made.close()


@pytest.fixture(scope="session")
def started(place: Place, base: Path) -> Iterator[Agent]:
    box = toolbox.ensure(on_stderr)
    made = Agent(place, base, qemu_dir=box.wrappers, share=box.path("usr/share"))
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()
    place.close()
    made.forget_groups()


@pytest.fixture
def agent(started: Agent) -> Iterator[Agent]:
    """The agent, running, and this thread in its network. What it said is shown when a test fails.

    With THIMBLE_BLOCKING=fail a test also fails when the agent's loop was held up (see `blocking`).
    """
    before = started.log.stat().st_size
    known = set(blocking.offences(started.blocked))
    if started.process is None or started.process.poll() is not None:
        started.start()
    with started.place.entered():
        yield started
    print(started.log.read_bytes()[before:].decode(errors="replace"))
    held_up = [line for line in blocking.offences(started.blocked) if line not in known]
    print(*(f"blocking: {line}" for line in held_up), sep="\n")
    assert not held_up or BLOCKING != "fail", "the agent's loop was held up by\n" + "\n".join(held_up)


@pytest.fixture
def client(agent: Agent) -> Iterator[Client]:
    with agent.client() as made:
        yield made


@pytest.fixture
def cli(agent: Agent) -> Cli:
    return Cli(agent)


@pytest.fixture
def images(client: Client, guest: TinyGuest) -> tuple[str, str]:
    """The tiny guest's kernel and initrd, uploaded once."""
    there = {image.name for image in client.call("image.list").images}
    for name, file in (("tiny.vmlinuz", guest.kernel), ("tiny.initrd", guest.initrd)):
        if f"local/{name}" not in there:
            with file.open("rb") as content:
                client.upload("image.upload", content, file.stat().st_size, path={"image": name})
    return "tiny.vmlinuz", "tiny.initrd"


@pytest.fixture
def no_vms(client: Client) -> Iterator[None]:
    """Whatever a test left is killed and deleted, so that the next one begins with none."""
    yield
    for vm in client.call("vm.list").vms:
        if "kill" in vm.allowed:
            client.finish(client.call("vm.kill", path={"vm": vm.id}), timeout=30)
        client.finish(client.call("vm.delete", _delete(), path={"vm": vm.id}), timeout=30)


def _delete() -> object:
    from thimble.contract.vm import DeleteRequest

    return DeleteRequest()
