"""Bad input gets a clear problem with the right status, nothing half-made, and an agent that goes on."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from agent_place import PORT, Agent, Cli, Place, until

from thimble.client.http import Client
from thimble.contract.host import Role, Session, TokenCreate
from thimble.contract.vm import VmCreate
from thimble.core.problem import TABLE, Code, Problem

pytestmark = pytest.mark.usefixtures("no_vms")


@pytest.fixture(autouse=True)
def nothing_is_left(client: Client, place: Place, agent: Agent) -> Iterator[None]:
    """After each of these there is no VM, no process and no file more than before."""

    def left() -> object:
        stores = agent.state / "datastores" / "local"
        return sorted(
            str(path) for part in ("vms", "volumes") for path in (stores / part).rglob("*")
        ), place.links()

    before = left()
    yield
    assert client.call("vm.list").vms == ()
    assert place.qemus() == []
    assert left() == before


def sent(client: Client, method: str, path: str, **more: Any) -> dict[str, Any]:
    """The problem document that raw bytes get."""
    headers = {"Authorization": f"Bearer {client.token}", "Content-Type": "application/json"}
    answer = client.http.request(method, f"/api/v1{path}", headers=headers | more.pop("headers", {}), **more)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document = answer.json()
    assert document["status"] == answer.status_code == TABLE[Code(document["code"])][0]
    assert document["detail"]
    assert "Traceback" not in answer.text
    return dict(document)


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b'{"name": "x", "colour": "red"}', Code.MALFORMED, "colour"),
        (b'{"name": "x", "vcpus": "two"}', Code.MALFORMED, "$.vcpus"),
        (b'{"name": "x"', Code.MALFORMED, ""),
        (b"\xff\xfe", Code.MALFORMED, ""),
        (b"[]", Code.MALFORMED, ""),
        (b"", Code.MALFORMED, ""),
        (b'{"name": "x", "memory_mib": 1}', None, "$.memory_mib"),
        (b'{"name": "x", "vcpus": 0}', None, "$.vcpus"),
        (b'{"name": "../x"}', Code.INVALID, "$.name"),
        (b'{"name": ""}', Code.INVALID, "$.name"),
        (b'{"name": "x", "memory_mib": 16777216}', None, "memory"),
        (b'{"name": "x", "disks": [{"size_bytes": 9223372036854775807}]}', None, "$.disks[0].size_bytes"),
        (b'{"name": "x", "disks": [{}]}', Code.INVALID, "$.disks[0]"),
        (b'{"name": "x", "disks": [{"image": "nope.qcow2"}]}', Code.NOT_FOUND, "nope.qcow2"),
        (b'{"name": "x", "cdroms": [{"image": "nope.iso"}]}', Code.NOT_FOUND, "nope.iso"),
        (b'{"name": "x", "disks": [{"volume": "nope"}]}', Code.NOT_FOUND, "nope"),
        (b'{"name": "x", "nics": [{"switch": "nope"}]}', Code.NOT_FOUND, "nope"),
        (b'{"name": "x", "nics": [{"switch": "nat", "mac": "nonsense"}]}', Code.INVALID, "$.nics[0].mac"),
        (b'{"name": "x", "datastore": "nope"}', Code.NOT_FOUND, "nope"),
        (b'{"name": "x", "firmware": "direct"}', Code.INVALID, "direct"),
        (b'{"name": "x", "machine": "microvm", "firmware": "uefi"}', Code.INVALID, "microvm"),
        (b'{"name": "x", "cpu": "pentium9"}', Code.INVALID, "pentium9"),
    ],
)  # fmt: skip
def test_an_impossible_vm_is_refused_with_the_place_of_the_fault(
    client: Client, body: bytes, code: Code | None, says: str
) -> None:
    document = sent(client, "POST", "/vms", content=body)
    assert code is None or document["code"] == code, document
    assert document["status"] < 500 or document["code"] in (Code.NO_SPACE, Code.NO_MEMORY)
    assert says in json.dumps(document)


def test_all_reasons_come_at_once(client: Client) -> None:
    document = sent(
        client, "POST", "/vms",
        content=b'{"name": "No", "nics": [{"switch": "nope"}], "disks": [{"image": "nope"}]}',
    )  # fmt: skip
    assert {reason.get("path", "").split(".")[1].split("[")[0] for reason in document["reasons"]} >= {
        "name", "nics", "disks",
    }  # fmt: skip


def test_a_name_is_taken_once(cli: Cli, client: Client) -> None:
    client.finish(client.call("vm.create", VmCreate(name="once")))
    told = cli("vm", "create", "once")
    assert told.returncode == 6
    assert "once" in told.stderr
    cli.ok("vm", "delete", "once", "-y")


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/vms/nope", Code.NOT_FOUND),
        ("GET", "/nope", Code.NOT_FOUND),
        ("PUT", "/vms", Code.METHOD_NOT_ALLOWED),
        ("POST", "/vms/nope/start", Code.NOT_FOUND),
        ("DELETE", "/images/local/nope", Code.NOT_FOUND),
        ("DELETE", "/volumes/local/..%2f..%2fetc", None),
        ("GET", "/events?after=abc", Code.INVALID),
        ("GET", "/events?after=1", Code.GONE),
        ("GET", "/tasks/task-nope", Code.NOT_FOUND),
    ],
)
def test_what_is_not_there_is_told(client: Client, method: str, path: str, code: Code | None) -> None:
    document = sent(client, method, path)
    assert code is None or document["code"] == code, document
    assert 400 <= document["status"] < 500


def test_a_giant_body_is_refused_before_it_is_read(client: Client) -> None:
    assert (
        sent(client, "POST", "/vms", content=b'{"name": "' + b"x" * (32 << 20) + b'"}')["code"] == "too-large"
    )


def test_an_upload_larger_than_the_datastore_is_refused_before_it_is_sent(
    agent: Agent, client: Client
) -> None:
    """The length is told, and not one byte of it comes."""
    request = (
        f"PUT /api/v1/images/huge.raw HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {client.token}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {1 << 50}\r\n\r\n"
    )
    with tls(agent) as line:
        line.sendall(request.encode())
        assert b" 507 " in line.recv(4096).split(b"\r\n")[0]
    assert all(image.name != "local/huge.raw" for image in client.call("image.list").images)


def tls(agent: Agent) -> ssl.SSLSocket:
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    settings.check_hostname, settings.verify_mode = False, ssl.CERT_NONE
    line = settings.wrap_socket(socket.create_connection(("127.0.0.1", PORT), 10))
    line.settimeout(20)
    return line


def test_an_upload_with_another_digest_is_refused_and_not_kept(client: Client, tmp_path: Any) -> None:
    import io

    with pytest.raises(Problem) as caught:
        client.upload(
            "image.upload", io.BytesIO(b"abc"), 3, path={"image": "bad.raw"}, query={"sha256": "0" * 64}
        )
    assert caught.value.exit_code == 2
    assert all(image.name != "local/bad.raw" for image in client.call("image.list").images)


def test_a_half_open_websocket_holds_nobody_up(agent: Agent, client: Client) -> None:
    with tls(agent) as line:
        line.sendall(b"GET /api/v1/vms/x/console HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")
        assert client.call("host.get").vms == 0
    with tls(agent) as line:
        line.sendall(
            "GET /api/v1/vms/nope/console HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {client.token}\r\n\r\n".encode()
        )
        assert b" 404 " in line.recv(4096).split(b"\r\n")[0]
    assert client.call("host.get").vms == 0


def test_a_wrong_password_exits_four_and_does_not_say_which_was_wrong(cli: Cli, agent: Agent) -> None:
    words = (
        "login",
        agent.url,
        "--fingerprint",
        agent.fingerprint,
        "--password-file",
        "-",
        "--name",
        "other",
    )
    one = cli(*words, input="wrong password\n")
    two = cli(*words, "--user", "nobody", input="wrong password\n")
    assert (one.returncode, two.returncode) == (4, 4)
    assert one.stderr.splitlines()[0] == two.stderr.splitlines()[0]


def test_a_token_ends_when_it_expires(agent: Agent, client: Client) -> None:
    token: Session = client.call("token.create", TokenCreate(name="brief", role=Role.VIEWER, expires_s=1.0))
    headers = {"Authorization": f"Bearer {token.token}"}

    def answer() -> httpx.Response:
        return client.http.get("/api/v1/vms", headers=headers)

    assert answer().status_code == 200
    until("it expires", lambda: answer().status_code == 401, 10)
    assert answer().json()["code"] == "unauthenticated"


def test_a_viewer_may_look_and_not_touch(agent: Agent, client: Client) -> None:
    token: Session = client.call("token.create", TokenCreate(name="viewer", role=Role.VIEWER, expires_s=60))
    with Client(agent.url, token=token.token, trust=client_trust(agent)) as viewer:
        assert viewer.call("vm.list").vms == ()
        with pytest.raises(Problem) as caught:
            viewer.call("vm.create", VmCreate(name="x"))
        assert caught.value.code is Code.FORBIDDEN


def client_trust(agent: Agent) -> Any:
    from thimble.client.trust import Trust

    return Trust(fingerprint=agent.fingerprint)


def test_a_second_agent_finds_the_port_in_use_and_says_so(agent: Agent) -> None:
    argv = [word.replace(str(agent.state), str(agent.base / "state2")) for word in agent.argv()]
    argv = [word.replace(str(agent.run), str(agent.base / "run2")) for word in argv]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert told.returncode == TABLE[Code.IN_USE][1], told.stderr
    assert str(PORT) in told.stderr
    assert "Traceback" not in told.stderr


def test_without_kvm_the_host_says_how_guests_run_and_why(cli: Cli) -> None:
    host = cli.json("host", "show")
    assert host["accel"] in ("kvm", "tcg")
    if host["accel"] == "tcg":
        assert host["accel_why"]
        assert any("KVM" in warning for warning in host["warnings"])
