"""The host document against a whole agent: planned, applied, applied again, changed, exported, cut off."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from agent_place import Agent, Cli, Place, until

from thimble.client.http import Client
from thimble.contract.common import Task
from thimble.contract.deploy import Guests, PolicyChange
from thimble.contract.document_api import DocumentExport, DocumentPlan, DocumentState, DocumentText
from thimble.contract.host import Role
from thimble.contract.network import SwitchCreate, SwitchKind
from thimble.contract.storage import VolumeCreate
from thimble.contract.vm import PowerState, Vm
from thimble.core.problem import Code, Problem

pytestmark = pytest.mark.usefixtures("no_vms")

TEXT = """\
format = 1

[host]
name = "rack7"

[[user]]
name = "ann"
role = "operator"
password_hash = "scrypt$14$8$1$00112233445566778899aabbccddeeff$\
fb3f2b2c0a5c2f6f7a0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f"

[[token]]
name = "ci"
user = "ann"
role = "viewer"
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
expires = 2035-01-01T00:00:00Z

[[datastore]]
name = "scratch"
kind = "ram"
size_bytes = 33554432

[[switch]]
name = "lan"
kind = "nat"
subnet = "10.203.7.0/24"
forwards = [{ port = 18022, vm = "web1", to_port = 22 }]

[[vm]]
name = "web1"
memory_mib = 96
firmware = "direct"
vga = false
tablet = false
direct = { kernel = "tiny.vmlinuz", initrd = "tiny.initrd", cmdline = "console=ttyS0 quiet panic=-1" }
disks = [{ size_bytes = 8388608 }, { volume = "kept" }]
nics = [{ switch = "lan" }]
"""

EFFECTS = [
    "creates the datastore scratch of 32 MiB of memory",
    "creates switch lan with the subnet 10.203.7.0/24",
    "creates VM web1 with a 8 MiB disk",
    "starts VM web1",
    "hands tcp port 18022 of the host to web1, port 22",
    "creates the operator ann",
    "creates the token ci of ann, viewer",
]


def plan(client: Client, text: str) -> DocumentPlan:
    found: DocumentPlan = client.call("document.plan", DocumentText(text=text))
    return found


def apply(client: Client, text: str, timeout: float = 90) -> Task:
    return client.finish(
        client.call("document.apply", DocumentText(text=text, source="test")), timeout=timeout
    )


def effects(client: Client, text: str) -> list[str]:
    return [effect.what for effect in plan(client, text).effects]


def vm(client: Client, name: str = "web1") -> Vm:
    found: Vm = client.call("vm.get", path={"vm": name})
    return found


@pytest.fixture
def text(client: Client, images: tuple[str, str], no_vms: None) -> Iterator[str]:
    """The document; what it makes is taken away afterwards."""
    client.finish(client.call("volume.create", VolumeCreate(name="kept", size_bytes=1 << 20)), timeout=30)
    yield TEXT
    for row in client.call("vm.list").vms:
        if "kill" in row.allowed:
            client.finish(client.call("vm.kill", path={"vm": row.id}), timeout=30)
        client.finish(client.call("vm.delete", path={"vm": row.id}), timeout=30)
    for verb, path in (
        ("switch.delete", {"switch": "lan"}),
        ("datastore.delete", {"datastore": "scratch"}),
        ("token.delete", {"token": "ci"}),
        ("user.delete", {"user": "ann"}),
        ("volume.delete", {"volume": "local/kept"}),
    ):
        with suppress(Problem):
            client.call(verb, path=path)


def test_a_document_makes_the_host_and_making_it_again_has_nothing_to_do(
    client: Client, text: str, place: Place
) -> None:
    told = effects(client, text)
    assert [line for line in told if "renames" not in line] == EFFECTS
    assert plan(client, text).blockers == ()
    done = apply(client, text).result["done"]
    assert done.splitlines() == told
    made = vm(client)
    assert made.status.state is PowerState.RUNNING and made.autostart.enabled
    assert [disk.volume.split("/")[1] for disk in made.disks][1] == "kept"
    assert any(user.name == "ann" and user.role is Role.OPERATOR for user in client.call("user.list").users)
    assert client.call("host.get").name == "rack7"
    assert effects(client, text) == []
    assert apply(client, text).result == {"note": "it is so already: nothing to do"}
    assert len(place.qemus()) == 1
    state: DocumentState = client.call("document.get")
    assert (state.complete, state.changes, state.problem, state.source) == (True, (), "", "test")


def test_a_change_says_that_it_restarts_the_vm_and_does(client: Client, text: str) -> None:
    apply(client, text)
    pid = vm(client).status.pid
    changed = text.replace("memory_mib = 96", "memory_mib = 112").replace("18022", "18023")
    assert effects(client, changed) == [
        "changes VM web1: memory 96 → 112 MiB",
        "restarts VM web1 (memory 96 → 112 MiB)",
        "hands tcp port 18023 of the host to web1, port 22, no longer hands on tcp port 18022",
    ]
    until(
        "the guest hears the power button",
        lambda: "up" in client.call("vm.log", path={"vm": "web1"}).text,
        90,
    )
    apply(client, changed)
    after = vm(client)
    assert after.status.state is PowerState.RUNNING and after.memory_mib == 112 and after.status.pid != pid
    assert effects(client, changed) == []
    stopped = changed.replace('name = "web1"\n', 'name = "web1"\nstate = "stopped"\n')
    assert effects(client, stopped) == ["shuts VM web1 down", "changes VM web1: autostart"]


def test_what_is_exported_is_what_is(client: Client, text: str, cli: Cli, tmp_path: Path) -> None:
    apply(client, text)
    exported: DocumentExport = client.call("document.export")
    assert "fb3f2b2c0a5c" in exported.text and 'name = "web1"' in exported.text
    found = plan(client, exported.text)
    assert (found.effects, found.blockers, found.drift) == ((), (), ())
    file = tmp_path / "host.toml"
    cli.ok("export", "-o", str(file))
    assert file.read_text() == exported.text and file.stat().st_mode & 0o77 == 0
    assert "nothing to do" in cli.ok("plan", str(file))


def test_how_a_host_moves_away_from_its_document_is_shown(client: Client, text: str, cli: Cli) -> None:
    document = text + '[update]\nvms = "save"\n'
    apply(client, document)
    assert client.call("deploy.get").policy.vms is Guests.SAVE
    state: DocumentState = client.call("document.get")
    assert state.changes == ()
    before = state.drift  # the account the tests use
    client.call("switch.create", SwitchCreate(name="stray", kind=SwitchKind.ISOLATED))
    try:
        client.call("deploy.change", PolicyChange(vms=Guests.SHUTDOWN))
        client.finish(client.call("vm.kill", path={"vm": "web1"}), timeout=30)
        shown = cli.ok("document", "show")
        assert "sets how the host is updated: vms save" in shown
        assert "starts VM web1" in shown and "switch stray is not in the document" in shown
        apply(client, document)
        state = client.call("document.get")
        assert state.changes == () and set(state.drift) == {"switch stray is not in the document", *before}
        exported: DocumentExport = client.call("document.export")
        assert '[update]\nvms = "save"' in exported.text
    finally:
        client.call("switch.delete", path={"switch": "stray"})
        client.call("deploy.change", PolicyChange(vms=Guests.POLICY))


def test_mistakes_are_all_told_with_their_places(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "host.toml"
    file.write_text(
        'format = 1\n[[vm]]\nname = "web1"\nvcpu = 2\nmemory_mib = "much"\n[[switch]]\nname = "lan"\n'
    )
    told = cli("plan", str(file))
    assert told.returncode == 2
    for words in (
        "host.toml:4:1: ",
        "did you mean 'vcpus'",
        "host.toml:5:14: ",
        "host.toml:6:1: 'kind' is missing",
    ):
        assert words in told.stderr
    assert "    5 | memory_mib" in told.stderr


def test_what_is_against_it_is_told_before_anything_happens(client: Client, text: str) -> None:
    broken = text.replace('switch = "lan" }', 'switch = "wan" }').replace("18022", "8443")
    found = plan(client, broken)
    told = {(reason.line > 0, reason.path) for reason in found.blockers}
    assert told == {(True, "$.vm[0].nics[0].switch"), (True, "$.switch[0].forwards[0].port")}
    with pytest.raises(Problem) as caught:
        client.call("document.apply", DocumentText(text=broken))
    assert caught.value.code is Code.NOT_FOUND or caught.value.code is Code.IN_USE
    assert client.call("vm.list").vms == ()


def test_only_admins_see_and_apply_documents(client: Client, text: str) -> None:
    apply(client, text)
    from thimble.contract.host import TokenCreate

    token = client.call("token.create", TokenCreate(name="looker", role=Role.OPERATOR)).token
    mine, client.token = client.token, token
    try:
        for verb, given in (
            ("document.export", None),
            ("document.get", None),
            ("document.plan", DocumentText(text=text)),
        ):
            with pytest.raises(Problem) as caught:
                client.call(verb, given)
            assert caught.value.code is Code.FORBIDDEN
    finally:
        client.token = mine
        client.call("token.delete", path={"token": "looker"})


def steps_of(client: Client, after: int) -> list[str]:
    """The steps that applying took, from the events."""
    seen: dict[str, None] = {}
    for event in client.events(after, timeout=1.0):
        if event.kind == "task.changed" and event.detail["verb"] == "document.apply" and event.detail["step"]:
            seen[event.detail["step"]] = None
    return list(seen)


STEPS = [
    "wait",
    "begin",
    "datastore scratch: datastore.create",
    "switch lan: switch.create",
    "vm web1: vm.create",
    "vm web1: vm.start",
    "switch lan: switch.change",
    "user ann: user.create",
    "token ci: token.create",
    "done",
]


def test_the_table_has_every_step(client: Client, text: str) -> None:
    client.call("document.plan", DocumentText(text=text))
    after = client.call("vm.list").rev
    apply(client, text)
    assert [step for step in steps_of(client, after) if not step.startswith("host")] == STEPS


@pytest.mark.parametrize("point", [f"{step}{end}" for step in STEPS for end in ("", ".done")])
def test_an_agent_killed_here_ends_right_when_it_is_applied_again(
    point: str, agent: Agent, place: Place, client: Client, text: str
) -> None:
    agent.end()
    agent.start(THIMBLE_FAULT=f"document.apply/{point}")
    with suppress(Problem):
        client.call("document.apply", DocumentText(text=text))
    assert agent.process is not None
    assert agent.process.wait(timeout=60) == 137
    agent.start()
    if point != "done.done":
        warned = any("not applied to its end" in line for line in client.call("host.get").warnings)
        assert warned is (point not in ("wait", "wait.done", "begin"))
    apply(client, text)
    assert effects(client, text) == []
    assert vm(client).status.state is PowerState.RUNNING and len(place.qemus()) == 1
    assert not any("not applied" in line for line in client.call("host.get").warnings)


def test_certificates_of_the_document_become_keys_once(client: Client, agent: Agent) -> None:
    pem = (agent.state / "tls" / "certificate.pem").read_text()
    text = f'format = 1\n[update]\ntrust = ["""\n{pem}"""]\n'
    (line,) = effects(client, text)
    assert line.startswith("accepts updates signed with the key document-")
    apply(client, text)
    (key,) = client.call("key.list").keys
    try:
        assert effects(client, text) == []
        exported: DocumentExport = client.call("document.export")
        assert "BEGIN CERTIFICATE" in exported.text and effects(client, exported.text) == []
    finally:
        client.call("key.delete", path={"key": key.name})


def test_the_schema_is_there_without_a_sign_in(agent: Agent) -> None:
    with urllib.request.urlopen(
        f"{agent.url}/api/v1/document/schema", timeout=30, context=ssl._create_unverified_context()
    ) as answer:
        assert b'"title": "Thimble host document' in answer.read()
