"""One stick boots the rack: blank, diskless neighbours end with a VM of their own, untouched by hand."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import visitor
from benchmarks.thimble_server import extended
from wire_seat import WireSeat

from thimble.access.passwords import hashed
from thimble.cli.demo import after
from thimble.client.http import Client
from thimble.client.trust import Trust
from thimble.contract.netboot import Neighbour, Netboot
from thimble.contract.network import SwitchCreate, SwitchKind
from thimble.image import cpio
from thimble.lab import home
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.render import mac_of, wire_port
from thimble.lab.server import LabServer
from thimble.lab.spec import LabFirmware, LabMedium, LabNic, ServerSpec

#: From a neighbour's power-on until its VM runs; three servers share two processors here.
NEIGHBOUR_S = 400.0
PASSWORD = "correct horse battery"
TEXT = f"""\
format = 1
[host]
name = "node{{{{n}}}}"

[[user]]
name = "admin"
role = "admin"
password_hash = "{hashed(PASSWORD, b"salt" * 4)}"

[[switch]]
name = "lan"
kind = "isolated"

[[vm]]
name = "web{{{{n}}}}"
memory_mib = 64
firmware = "bios"
vga = false
tablet = false
nics = [{{ switch = "lan" }}]
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        LabServer.attach(entry.name).down(force=True)


def stick(image: Path, *nics: LabNic) -> ServerSpec:
    """The server somebody put the stick into."""
    return spec_of_image(
        image, name="stick", medium=LabMedium.IMG, firmware=LabFirmware.UEFI, nics=nics, memory_mib=3072
    )


def blank(image: Path, name: str, firmware: LabFirmware, nic: LabNic, memory_mib: int = 3072) -> ServerSpec:
    return spec_of_image(
        image, name=name, medium=LabMedium.NONE, firmware=firmware, nics=(nic,), memory_mib=memory_mib
    )


class Stick:
    """The server with the stick, and somebody who has its console."""

    def __init__(self, spec: ServerSpec, scratch: Path) -> None:
        self.server = LabServer.up(spec)
        self.server.wait_for(b"thimble: ready in ", visitor.BOOT_S)
        self.fingerprint = after(self.server, b"certificate SHA-256 ")
        self.password = after(self.server, b"login admin, password ")
        self.thimble = visitor.Commands(self._signed_in(), self.fingerprint, scratch)

    def power_cut(self) -> None:
        """And it is back, and somebody is signed in again."""
        self.server.cut_power()
        self.server.power_on()
        self.server.wait_for(b"thimble: ready in ", visitor.BOOT_S)
        self.thimble.client = self._signed_in()

    def _signed_in(self) -> Client:
        url = f"https://127.0.0.1:{self.server.forward(443)}"
        client = Client(url, trust=Trust(fingerprint=self.fingerprint))
        client.token = visitor.signed_in(client, self.password)
        return client


def neighbours(thimble: visitor.Commands) -> dict[str, Neighbour]:
    """By the name each gave itself, or its MAC."""
    found = thimble.client.call("neighbour.list").neighbours
    return {one.report.name if one.report else one.mac: one for one in found}


def netboot(thimble: visitor.Commands) -> Netboot:
    found: Netboot = thimble.client.call("netboot.get")
    return found


def applied(thimble: visitor.Commands, *names: str) -> bool:
    found = neighbours(thimble)
    return all(name in found and found[name].stage == "applied" for name in names)


def tails(*servers: LabServer) -> None:
    for server in servers:
        print(server.spec.name, server.timeline, server.serial.tail(2500).decode(errors="replace"))


def test_the_stick_boots_blank_neighbours_and_goes_on_after_a_power_cut(image: Path, tmp_path: Path) -> None:
    """One by BIOS, known by its MAC; one by UEFI over HTTP, by its serial number; a third is a stranger."""
    wire = f"rack {tmp_path}"
    document = tmp_path / "node.toml"
    document.write_text(TEXT)

    def run(attempt: int) -> None:
        servers: list[LabServer] = []
        try:
            host = Stick(stick(image, LabNic(forwards=(443,)), LabNic(wire=wire)), tmp_path)
            servers.append(host.server)
            thimble = host.thimble
            uplink = mac_of("stick", 1)
            thimble.client.call(
                "switch.create", SwitchCreate(name="rack", kind=SwitchKind.BRIDGED, uplink=uplink)
            )
            serve = ["host", "serve-boot", "--switch", "rack", "--document", str(document)]
            serve += ["--allow", mac_of("one", 0), "--allow", "serial:two", "--subnet", "192.168.77.0/24"]
            assert "boots 52:54:" in thimble.ok(*serve, "--dry-run")
            thimble.ok(*serve)
            nic = LabNic(wire=wire, pxe=True)
            one = LabServer.up(blank(image, "one", LabFirmware.BIOS, nic))
            servers.append(one)
            visitor.until("it loads", lambda: netboot(thimble).bytes_sent > 4 << 20, NEIGHBOUR_S)
            host.power_cut()
            visitor.until("it serves again by itself", lambda: netboot(thimble).on, 120)
            one.cut_power()
            one.power_on()
            servers.append(LabServer.up(blank(image, "two", LabFirmware.UEFI, LabNic(wire=wire, http=True))))
            servers.append(LabServer.up(blank(image, "stranger", LabFirmware.BIOS, nic, memory_mib=256)))
            visitor.until("both run", lambda: applied(thimble, "node1", "node2"), NEIGHBOUR_S, 2.0)
            _told(thimble)
            with WireSeat(wire_port(wire), "192.168.77.9/24") as seat:
                _each_is_asked(seat, host, tmp_path)
                _strangers_get_nothing(seat)
            assert netboot(thimble).on, "whatever strangers sent"
            visitor.until("the stranger asked", lambda: netboot(thimble).refused > 0, 120)
            assert set(neighbours(thimble)) == {"node1", "node2"}
            thimble.ok("host", "serve-boot", "--off")
            assert netboot(thimble).on is False
        finally:
            tails(*servers)
            for entry in home.entries():
                LabServer.attach(entry.name).down(force=True)

    with_retries(run)


def _told(thimble: visitor.Commands) -> None:
    """The list says what they are, and they are what they say."""
    found = neighbours(thimble)
    assert [found[name].number for name in ("node1", "node2")] == [1, 2]
    assert found["node2"].serial == "two" and found["node1"].mac == mac_of("one", 0)
    for number in (1, 2):
        one = found[f"node{number}"]
        visitor.until(
            f"web{number} runs",
            lambda name=f"node{number}": [vm.state for vm in neighbours(thimble)[name].report.vms]
            == ["running"],  # type: ignore[misc]
            120,
        )
        assert one.asked < one.loaded < one.ready <= one.applied <= one.seen <= time.time() + 60
    table = thimble.ok("host", "neighbours")
    assert "node1" in table and "node2" in table and "1/1" in table


def _runs(thimble: visitor.Commands, name: str) -> bool:
    report = neighbours(thimble)[name].report
    return report is not None and [vm.state for vm in report.vms] == ["running"]


def _each_is_asked(seat: WireSeat, host: Stick, scratch: Path) -> None:
    """By one command, typed by somebody on that wire."""
    keys = {"XDG_CONFIG_HOME": str(scratch / "seat"), "THIMBLE_FINGERPRINT": host.fingerprint}
    typed = (sys.executable, "-m", "thimble.cli.main")
    entered = seat.run(
        *typed, "login", "https://192.168.77.1", "--user", "admin", **keys, THIMBLE_PASSWORD=host.password
    )
    assert entered.returncode == 0, entered.stderr
    keys.pop("THIMBLE_FINGERPRINT")
    told = seat.run(
        *typed, "host", "neighbours", "--each", "--", "vm", "list", **keys, THIMBLE_PASSWORD=PASSWORD
    )
    assert told.returncode == 0, told.stderr
    first, second = told.stdout.split("── 2 node2 ")
    assert "── 1 node1 https://192.168.77." in first
    assert "web1" in first and "web2" in second and "web2" not in first


def _strangers_get_nothing(seat: WireSeat) -> None:
    told = seat.run(sys.executable, str(Path(__file__).with_name("forger.py")), "192.168.77.1")
    assert told.stdout.split() == ["403", "404", "404", "404", "error"], told.stderr


def foreign(image: Path, wire: str, scratch: Path) -> ServerSpec:
    """A server that is 192.168.66.1 and gives addresses on the wire."""
    initrd = scratch / "initrd"
    script = cpio.file("neighbour.py", Path(__file__).with_name("neighbour.py").read_bytes(), 0o755)
    initrd.write_bytes(extended((image / "initrd").read_bytes(), [script]))
    words = "rdinit=/neighbour.py ip=192.168.66.1:::255.255.255.0 ip=[fd77::1]:::64"
    spec = spec_of_image(image, name="foreign", nics=(LabNic(wire=wire),), append=words)
    return msgspec.structs.replace(spec, initrd=str(initrd))


def test_beside_a_foreign_dhcp_server_only_the_boot_is_told(image: Path, tmp_path: Path) -> None:
    wire = f"lan {tmp_path}"
    document = tmp_path / "node.toml"
    document.write_text(TEXT)

    def run(attempt: int) -> None:
        servers = [LabServer.up(foreign(image, wire, tmp_path))]
        try:
            servers[0].wait_for(b"neighbour: serving", visitor.BOOT_S)
            host = Stick(stick(image, LabNic(forwards=(443,)), LabNic(wire=wire)), tmp_path)
            servers.append(host.server)
            thimble = host.thimble
            thimble.client.call(
                "switch.create",
                SwitchCreate(name="rack", kind=SwitchKind.BRIDGED, uplink=mac_of("stick", 1)),
            )
            serve = ["host", "serve-boot", "--switch", "rack", "--allow", "any", "--document", str(document)]
            refused = thimble(*serve)
            assert refused.returncode == 6
            assert "192.168.66.1 gives addresses on that wire already" in refused.stderr
            assert netboot(thimble).settings is None, "nothing is half-done"
            thimble.ok(*serve, "--proxy", "--subnet", "192.168.66.2/24")
            servers.append(LabServer.up(blank(image, "one", LabFirmware.UEFI, LabNic(wire=wire, pxe=True))))
            visitor.until("it runs", lambda: applied(thimble, "node1"), NEIGHBOUR_S, 2.0)
            found = neighbours(thimble)["node1"]
            assert found.report is not None and found.report.url == f"https://{found.ip}/"
            assert 100 <= int(found.ip.removeprefix("192.168.66.")) <= 200, "the other server's address"
        finally:
            tails(*servers)
            for entry in home.entries():
                LabServer.attach(entry.name).down(force=True)

    with_retries(run)
