"""Somebody changes how the host is reached, from afar: what was wrong is undone, what is right stays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from visitor import BOOT_S, Commands, until, visit

from thimble.client.http import Client
from thimble.client.trust import Trust
from thimble.contract.host import Role, TokenCreate
from thimble.contract.management import Management, ManagementChange
from thimble.core.problem import Code, Problem
from thimble.lab import home
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.qmp import Qmp
from thimble.lab.server import LabServer
from thimble.lab.spec import STATE_LABEL, LabDisk

FIRST, SECOND, GATEWAY = "10.0.2.15/24", "10.0.2.77/24", "10.0.2.2"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    for entry in home.entries():
        LabServer.attach(entry.name).down(force=True)


class Site:
    """The server as seen from two addresses it may have."""

    def __init__(self, server: LabServer) -> None:
        self.server = server
        self.client = visit(server)
        lasting = TokenCreate(name="traveller", role=Role.ADMIN)  # sessions end with the agent
        self.client.token = self.client.call("token.create", lasting).token
        self.fingerprint = self.client.call("host.get").certificate_sha256
        with Qmp(server.home / "qmp.sock") as line:
            line.human("hostfwd_add net0 tcp:127.0.0.1:0-10.0.2.77:443")
            said = line.human("info usernet")
        self.second = next(
            int(words[3]) for words in map(str.split, said.splitlines()) if "10.0.2.77" in words
        )

    def fresh(self, port: int = 0, timeout: float = 5.0) -> Client:
        url = f"https://127.0.0.1:{port}" if port else self.client.url
        return Client(
            url, trust=Trust(fingerprint=self.fingerprint), token=self.client.token, timeout=timeout
        )

    def now(self, port: int = 0) -> Management:
        """By a connection of its own."""
        with self.fresh(port) as client:
            found: Management = client.call("management.get")
            return found


def static(address: str, seconds: int, *, vlan: int = 0) -> ManagementChange:
    return ManagementChange(address=address, gateway=GATEWAY, vlan=vlan, confirm_within=seconds)


def test_new_settings_are_undone_unless_the_host_is_reached_with_them(image: Path, tmp_path: Path) -> None:
    def run(attempt: int) -> None:
        disk = LabDisk(size_bytes=256 << 20, label=STATE_LABEL)
        server = LabServer.up(spec_of_image(image, name=f"mgmt-trial-{attempt}", disks=(disk,)))
        try:
            site = Site(server)
            _a_wrong_vlan_is_undone_by_itself(site)
            _only_a_new_connection_confirms(site, tmp_path)
            _an_address_is_confirmed_and_outlives_a_power_cut_but_not_one_on_trial(site)
        finally:
            server.down(force=True)

    with_retries(run)


def _a_wrong_vlan_is_undone_by_itself(site: Site) -> None:
    rev = site.client.call("vm.list").rev
    begun = site.client.call("management.change", static(SECOND, 10, vlan=7))
    assert begun.settings.vlan == 7 and begun.pending.previous.vlan == 0

    def cut_off() -> bool:
        try:
            return not site.now().pending
        except Problem:
            return True

    until("the wrong VLAN cuts the host off", cut_off, 60, 0.1)
    back = until("it answers where it did before", site.now, 60)
    assert (back.rev, back.pending, back.settings.vlan) == (0, None, 0)
    site.server.wait_for(b"new settings are undone: nobody confirmed them", 5)
    with site.fresh() as client:
        kinds = [event.kind for event in client.events(rev, timeout=2)]
    assert kinds.count("management.pending") == kinds.count("management.undone") == 1


def _only_a_new_connection_confirms(site: Site, scratch: Path) -> None:
    with site.fresh() as client:  # one connection, kept alive; the address stays, so it lives on
        client.call("management.change", static(FIRST, 60))
        until("in force", lambda: (now := site.now()).pending and now.pending.in_force, 60)
        warned = client.call("host.get").warnings
        assert any("unless they are confirmed" in line for line in warned), warned
        with pytest.raises(Problem) as caught:
            client.call("management.confirm")
        assert caught.value.code is Code.CONFLICT and "before the change" in caught.value.detail
        client.call("management.undo")
    assert site.now().rev == 0
    typed = Commands(site.client, site.fingerprint, scratch)
    told = typed("host", "network", "set", "--address", FIRST, "--gateway", GATEWAY)
    assert told.returncode == 0, told.stderr
    assert "on trial until " in told.stderr and "reached and confirmed" in told.stdout
    assert typed.json("host", "network")["settings"]["address"] == FIRST
    assert (now := site.now()).rev == 1 and now.pending is None


def _an_address_is_confirmed_and_outlives_a_power_cut_but_not_one_on_trial(site: Site) -> None:
    site.client.call("management.change", static(SECOND, 60))
    with contextlib.suppress(Problem):
        site.client.call("management.get")

    def confirmed() -> Management:
        with site.fresh(site.second) as client:
            kept: Management = client.call("management.confirm")
            return kept

    assert until("confirmed at the new address", confirmed, 60).settings.address == SECOND
    with site.fresh(site.second) as client:
        client.call("management.change", static(FIRST, 600))
    until("the next one on trial", lambda: site.now().pending, 60)
    site.server.reset()
    site.server.wait_for(b"thimble: https://10.0.2.77/", BOOT_S, mark="again")
    found = until("the confirmed address", lambda: site.now(site.second), 60)
    assert (found.rev, found.settings.address, found.pending) == (2, SECOND, None)
