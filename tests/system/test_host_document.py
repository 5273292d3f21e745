"""The booted host and its document: found on a volume or at an address, applied, not applied twice; one with
mistakes, and an address that hangs, leave a host that can be managed.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stick
import visitor

from thimble.access.passwords import hashed
from thimble.cli.demo import after
from thimble.client.http import Client
from thimble.client.trust import Trust
from thimble.contract.document_api import DocumentState
from thimble.contract.host import Host
from thimble.contract.management import Management
from thimble.contract.vm import PowerState, Vm
from thimble.core.problem import Code
from thimble.lab import home
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.server import LabServer
from thimble.lab.spec import STATE_LABEL, LabDisk

BOOT_S = 240.0
PASSWORD = "correct horse battery"
#: The document has not set the password yet, and too many wrong ones were tried meanwhile.
APPLIED_SOON = (Code.UNAUTHENTICATED, Code.RATE_LIMITED)

TEXT = f"""\
format = 1

[host]
name = "rack7"

[management]
address = "10.0.2.15/24"
gateway = "10.0.2.2"
dns = ["10.0.2.3"]
address6 = "off"

[time]
servers = ["10.0.2.77"]

[[user]]
name = "admin"
role = "admin"
password_hash = "{hashed(PASSWORD, b"salt" * 4)}"

[[switch]]
name = "lan"
kind = "isolated"

[[vm]]
name = "web1"
memory_mib = 64
firmware = "bios"
vga = false
tablet = false
disks = [{{ size_bytes = 8388608 }}]
nics = [{{ switch = "lan" }}]
"""


@pytest.fixture(autouse=True)
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        LabServer.attach(entry.name).down(force=True)


def power_on(image: Path, disks: tuple[LabDisk, ...], append: str = "") -> LabServer:
    return LabServer.up(spec_of_image(image, name="document", disks=disks, append=append, memory_mib=3072))


def signed_in(server: LabServer, fingerprint: str) -> Client:
    url = f"https://127.0.0.1:{server.forward(443)}"
    client = Client(url, trust=Trust(fingerprint=fingerprint))
    client.token = visitor.signed_in(client, PASSWORD, APPLIED_SOON)
    return client


def test_a_document_on_a_stick_makes_the_host_and_is_not_applied_twice(image: Path, tmp_path: Path) -> None:
    def run(attempt: int) -> None:
        found = LabDisk(file=str(stick.volume(tmp_path / "stick.raw", TEXT)))
        state = LabDisk(size_bytes=3 << 30, label=STATE_LABEL)
        server = power_on(image, (state, found))
        try:
            server.wait_for(b"thimble: ready in ", BOOT_S)
            fingerprint = after(server, b"certificate SHA-256 ")
            server.wait_for(b"thimble: document /dev/vdb (THIMBLE): applied, ", BOOT_S)
            found_it = b"thimble: host document found on /dev/vdb (THIMBLE)"
            assert found_it in server.serial.tail(1 << 20), "before or after it was ready"
            client = signed_in(server, fingerprint)
            host: Host = client.call("host.get")
            assert host.name == "rack7"
            vm: Vm = client.call("vm.get", path={"vm": "web1"})
            assert vm.status.state is PowerState.RUNNING
            managed: Management = client.call("management.get")
            assert (managed.settings.address, managed.settings.ntp) == ("10.0.2.15/24", ("10.0.2.77",))
            _typed(visitor.Commands(client, fingerprint, tmp_path), tmp_path)
            server.cut_power()
            server.power_on()
            server.wait_for(b"thimble: ready in ", BOOT_S)
            client = signed_in(server, fingerprint)
            visitor.until("web1 runs again", lambda: _runs(client))
            again: DocumentState = client.call("document.get")
            assert (again.complete, again.changes, again.problem) == (True, (), "")
            tasks = [task.verb for task in client.call("task.list").tasks]
            assert "document.apply" not in tasks, "it is applied once"
        finally:
            server.down(force=True)

    with_retries(run)


def _typed(thimble: visitor.Commands, scratch: Path) -> None:
    """What the host is, exported and planned; one more switch, planned, applied, exported; then drift."""
    backup, document = str(scratch / "backup.toml"), scratch / "more.toml"
    thimble.ok("export", "-o", backup)
    assert thimble.ok("plan", backup) == "nothing to do: the host is as the document says\n"
    document.write_text(Path(backup).read_text() + '[[switch]]\nname = "back"\nkind = "isolated"\n')
    told = "this would happen:\n  creates switch back without a way out\n"
    assert thimble.ok("plan", str(document)) == thimble.ok("apply", str(document), "--dry-run") == told
    done = thimble.json("apply", str(document), "--yes")
    assert done["state"] == "done" and "creates switch back" in done["result"]["done"]
    assert thimble.ok("apply", str(document)) == "it is so already: nothing to do\n"
    thimble.ok("net", "delete", "back")
    assert "creates switch back" in thimble.ok("document", "show")
    thimble.ok("apply", backup)
    document.write_text("format = 1\n[host]\nnam = 1\n")
    wrong = thimble("apply", str(document))
    assert (wrong.returncode, wrong.stdout) == (2, "") and "more.toml:3:1" in wrong.stderr


def _runs(client: Client) -> bool:
    vm: Vm = client.call("vm.get", path={"vm": "web1"})
    return vm.status.state is PowerState.RUNNING


class Web:
    """Serves `text`; nothing at all to whoever asks for /hang."""

    def __init__(self, text: str) -> None:
        self.over = threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/hang":
                    web.over.wait(600)
                    return
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        """As the virtual server reaches this machine."""
        return f"http://10.0.2.2:{self.server.server_port}{path}"


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web(TEXT.replace("web1", "web2"))
    yield made
    made.over.set()
    made.server.shutdown()


def test_a_host_without_state_takes_its_document_from_an_address(image: Path, web: Web) -> None:
    def run(attempt: int) -> None:
        server = power_on(image, (), append=f"thimble.config={web.url('/thimble.toml')}")
        try:
            server.wait_for(b"thimble: ready in ", BOOT_S)
            fingerprint = after(server, b"certificate SHA-256 ")
            server.wait_for(b"/thimble.toml: applied, ", BOOT_S)
            client = signed_in(server, fingerprint)
            assert [vm.name for vm in client.call("vm.list").vms] == ["web2"]
        finally:
            server.down(force=True)

    with_retries(run)


def test_an_address_that_hangs_and_a_document_with_mistakes_leave_a_host_that_can_be_managed(
    image: Path, tmp_path: Path, web: Web
) -> None:
    def run(attempt: int) -> None:
        server = power_on(image, (), append=f"thimble.config={web.url('/hang')}")
        try:
            server.wait_for(b"thimble: ready in ", BOOT_S)
            server.wait_for(b"/hang: the server said nothing", BOOT_S)
        finally:
            server.down(force=True)
        broken = TEXT.replace('kind = "isolated"', 'kind = "insulated"').replace("memory_mib", "memory")
        found = LabDisk(file=str(stick.volume(tmp_path / "stick.raw", broken)))
        server = power_on(image, (found,))
        try:
            server.wait_for(b"thimble: ready in ", BOOT_S)
            fingerprint = after(server, b"certificate SHA-256 ")
            password = after(server, b"login admin, password ")
            server.wait_for(b"is not applied: the document has 2 mistakes", BOOT_S)
            server.wait_for(b"thimble: document 22:8: 'insulated' is none of nat, bridged, isolated", BOOT_S)
            url = f"https://127.0.0.1:{server.forward(443)}"
            with Client(url, trust=Trust(fingerprint=fingerprint)) as client:
                client.token = visitor.signed_in(client, password)
                host: Host = client.call("host.get")
                assert any("'insulated'" in line and "22:8" in line for line in host.warnings)
                assert client.call("vm.list").vms == ()
        finally:
            server.down(force=True)

    with_retries(run)
