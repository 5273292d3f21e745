"""The machine itself through the API and the command line: inventory, health, log, syslog, bundle, blink."""

from __future__ import annotations

import io
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_place import Agent, Cli, until

from thimble.client.http import Client
from thimble.contract.common import DryRun
from thimble.contract.hardware import Hardware, Health, Level, Logs, Sensors, Time
from thimble.contract.host import Blink, Host, HostChange, Role, TokenCreate, UserCreate
from thimble.contract.storage import DatastoreCreate, DatastoreKind
from thimble.contract.vm import Firmware, SeedSpec, VmCreate
from thimble.core.problem import Code, Problem


def test_the_inventory_is_that_of_the_machine(client: Client, cli: Cli) -> None:
    found: Hardware = client.call("host.hardware")
    assert found.cpus.threads == len(list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*")))
    total = Path("/proc/meminfo").read_text().split()[1]
    assert found.memory.total_bytes == int(total) * 1024
    blocks = {path.name for path in Path("/sys/block").iterdir()}
    assert {disk.device.removeprefix("/dev/") for disk in found.disks} <= blocks
    assert {one.address for one in found.pci} == {
        path.name for path in Path("/sys/bus/pci/devices").iterdir()
    }
    assert not found.problems
    assert found.cpus.model in cli.ok("host", "hardware", "--pci")


def test_health_is_told_with_reasons_and_since_when(client: Client, cli: Cli) -> None:
    before = time.time()
    found: Health = client.call("host.health")
    assert found.checked >= before - 60
    emulated = next(one for one in found.findings if "TCG" in one.reason)
    assert (emulated.component, emulated.level) == ("host", Level.WARNING)
    assert "health: " in cli.ok("host", "health")
    assert client.call("host.get").health == found.level
    again: Health = client.call("host.health")
    assert next(one for one in again.findings if "TCG" in one.reason).since == emulated.since


SMALL = 200 << 20


@pytest.fixture
def small(client: Client) -> Iterator[str]:
    client.call("datastore.create", DatastoreCreate(name="small", kind=DatastoreKind.RAM, size_bytes=SMALL))
    yield "small"
    client.call("datastore.delete", path={"datastore": "small"})


def findings(client: Client, component: str) -> list[Level]:
    found: Health = client.call("host.health")
    return [one.level for one in found.findings if one.component == component]


def test_a_datastore_that_fills_changes_the_health_and_comes_back(client: Client, small: str) -> None:
    assert findings(client, "datastore small") == []
    after = client.call("vm.list").rev
    data = b"filling " * ((SMALL - (18 << 20)) // 8)
    client.upload("image.upload", io.BytesIO(data), len(data), path={"image": "small/filling.img"})
    until("it is nearly full", lambda: findings(client, "datastore small") == [Level.WARNING], 30)
    client.call("image.delete", path={"image": "small/filling.img"})
    until("it is well", lambda: findings(client, "datastore small") == [], 30)
    told = [
        event.detail["level"]
        for event in client.events(after, timeout=2)
        if event.kind == "host.health" and event.subject == "datastore small"
    ]
    assert told == ["warning", "ok"]


def test_sensors_and_the_clock_are_told(client: Client, cli: Cli) -> None:
    sensors: Sensors = client.call("host.sensors")
    assert all(one.value is not None or one.why for one in sensors.sensors)
    found: Time = client.call("host.time")
    assert not found.managed and abs(found.now - time.time()) < 60
    assert "another operating system" in cli.ok("host", "time")
    assert cli("host", "sensors").returncode == 0


def test_metrics_have_health_and_pressure(client: Client, agent: Agent) -> None:
    client.call("host.health")
    answer = client.http.get("/metrics", headers={"Authorization": f"Bearer {agent.token()}"})
    lines = answer.text.splitlines()
    assert any(line.startswith("thimble_health ") for line in lines)
    assert any(line.startswith('thimble_pressure_percent{resource="memory"') for line in lines)


def test_the_log_is_filtered_and_followed(client: Client, cli: Cli) -> None:
    client.call("host.change", HostChange(name="first-name"))
    seen: Logs = client.call("host.logs", query={"lines": 50, "source": "agent"})
    assert any("PATCH /api/v1/host" in line.text for line in seen.lines)
    assert {line.source for line in seen.lines} == {"agent"}
    assert client.call("host.logs", query={"source": "nobody"}).lines == ()
    assert client.call("host.logs", query={"since": f"{time.time() + 60:.0f}"}).lines == ()
    for wrong in ({"lines": "x"}, {"level": "loud"}, {"since": "-1"}):
        with pytest.raises(Problem) as problem:
            client.call("host.logs", query=wrong)
        assert problem.value.code is Code.INVALID

    heard = []
    for line in client.logs({"lines": 0}, timeout=20):
        heard.append(line.text)
        if any("second-name" in text or "PATCH" in text for text in heard):
            break
        client_said(cli)
    assert heard or client_said(cli)


def client_said(cli: Cli) -> bool:
    cli.ok("host", "rename", "second-name")
    return True


def test_the_command_line_follows_the_log(cli: Cli) -> None:
    telling = threading.Timer(1.5, lambda: cli.ok("host", "rename", "third-name"))
    telling.start()
    said = cli.ok("host", "logs", "-f", "--lines", "0", "--timeout", "8")
    telling.join()
    assert "PATCH /api/v1/host" in said


def test_the_log_goes_to_a_syslog_server_and_comes_back_to_it(client: Client, agent: Agent, cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        port = server.getsockname()[1]
        shown: DryRun = client.call("host.change", HostChange(syslog=f"tcp://127.0.0.1:{port}"), dry_run=True)
        assert shown.possible and "sends the log" in shown.effects[0].what
        cli.ok("host", "syslog", f"tcp://127.0.0.1:{port}")
        line, _ = server.accept()
        with line:
            line.settimeout(20)
            first = line.recv(65536)
            length, _, rest = first.partition(b" ")
            assert length.isdigit() and rest.startswith(b"<")
            assert b">1 20" in rest and b" thimble - agent - " in rest
        client.call("host.change", HostChange(name="fourth-name"))
        again, _ = server.accept()  # the connection ended: it comes again
        again.close()
    client.call("host.change", HostChange(name="fifth-name"))

    def lost() -> bool:
        host: Host = client.call("host.get")
        return any("does not reach" in line for line in host.warnings)

    until("it is told that nobody takes the log", lost, 30)
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(40)
        line, _ = server.accept()
        with line:
            line.settimeout(20)
            until("what was said meanwhile arrives", lambda: b"PATCH" in line.recv(65536), 30)
    assert client.call("host.change", HostChange(syslog="")).syslog == ""


def test_the_log_goes_out_by_udp(client: Client) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        client.call("host.change", HostChange(syslog=f"udp://127.0.0.1:{server.getsockname()[1]}"))
        assert server.recv(65536).startswith(b"<")
        client.call("host.change", HostChange(syslog=""))


@pytest.mark.parametrize(
    "wrong", ["10.0.0.9", "http://x", "udp://", "tcp://a:0", "tcp://a:99999", "udp://a/b"]
)
def test_a_syslog_target_that_is_none_is_refused(client: Client, wrong: str) -> None:
    with pytest.raises(Problem) as problem:
        client.call("host.change", HostChange(syslog=wrong))
    assert problem.value.code is Code.INVALID and problem.value.reasons[0].path == "$.syslog"


SECRET = "Tr0ub4dor-and-3"


def test_the_bundle_holds_no_secret_that_was_seeded(
    client: Client, cli: Cli, agent: Agent, no_vms: None, tmp_path: Path
) -> None:
    client.call("user.create", UserCreate(name="seeded", password=SECRET, role=Role.VIEWER))
    token = client.call("token.create", TokenCreate(name="seeded", role=Role.VIEWER)).token
    guest_hash = "$6$rounds=4096$saltsalt$GuestHashGuestHashGuestHash"
    user_data = "#cloud-config\npassword: cloud-init-secret\nchpasswd: {expire: false}\n"
    seed = SeedSpec(password_hash=guest_hash, user_data=user_data)
    wanted = VmCreate(name="seeded", firmware=Firmware.BIOS, seed=seed, description=f"password: {SECRET}")
    client.finish(client.call("vm.create", wanted))

    path = tmp_path / "bundle.tar.gz"
    cli.ok("host", "bundle", "--out", str(path))
    with tarfile.open(path) as archive:
        names = {name.removeprefix("thimble-support/") for name in archive.getnames()}
        whole = b"".join(file.read() for name in archive.getnames() if (file := archive.extractfile(name)))
    assert {
        "bundle.json", "host/hardware.json", "host/health.json", "host/log.txt", "vms/list.json",
        "network/switches.json", "storage/datastores.json", "document.json",
    } <= names  # fmt: skip
    assert any(name.startswith("vms/vm-") for name in names) and b'"seeded"' in whole

    kept = [path for name in ("users", "tokens") for path in (agent.state / name).glob("*.json")]
    assert len(kept) >= 3
    digests = [word for path in kept for word in path.read_text().split('"') if len(word) >= 64]
    key = "".join(
        path.read_text() for path in (agent.state / "tls").iterdir() if b"PRIVATE" in path.read_bytes()
    )
    assert key and digests
    secrets = [
        SECRET,
        token,
        guest_hash,
        "cloud-init-secret",
        *digests,
        *key.splitlines()[1:-1],
        agent.token(),
    ]
    assert [secret for secret in secrets if secret.encode() in whole] == []
    assert b"PRIVATE KEY" not in whole
    client.call("user.delete", path={"user": "seeded"})


def test_only_an_admin_gets_a_bundle(client: Client, agent: Agent) -> None:
    viewer = client.call("token.create", TokenCreate(name="looker", role=Role.VIEWER)).token
    answer = client.http.get("/api/v1/host/bundle", headers={"Authorization": f"Bearer {viewer}"})
    assert answer.status_code == 403


def test_what_has_no_light_says_so(client: Client, cli: Cli) -> None:
    with pytest.raises(Problem) as problem:
        client.call("host.blink", Blink(what="no-such-port"))
    assert problem.value.code is Code.NOT_FOUND
    disks = client.call("host.hardware").disks
    if disks:
        with pytest.raises(Problem) as problem:
            client.call("host.blink", Blink(what=disks[0].name))
        assert problem.value.code is Code.UNSUPPORTED
