"""Records that another host wrote, on a datastore carried here."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from msgspec.structs import replace
from vm_examples import record
from vm_table_world import context, noted

from thimble.contract.vm import CdromSpec, DiskSpec, NicSpec
from thimble.state.store import Collection
from thimble.vm.record.assign import UID_FIRST
from thimble.vm.record.spec import Card, Phase, VmRecord
from thimble.vm.record.upgrades import UPGRADES
from thimble.vm.startup import Startup
from thimble.vm.table import VmTable

MAC = "52:54:00:00:00:99"
numbers = itertools.count(1)


GIVEN = ("uid", "uuid")


def vm(**more: Any) -> VmRecord:
    """`nics`: name → its card; the rest is of the spec, or assigned."""
    value = ready_with_nic()
    given = {name: more.pop(name) for name in GIVEN if name in more}
    cards = more.pop("cards", None)
    if cards is not None:
        given["nics"] = cards
        more["nics"] = tuple(NicSpec(name=name, switch="nat") for name in cards)
    return replace(value, spec=replace(value.spec, **more), assigned=replace(value.assigned, **given))


def ready_with_nic() -> VmRecord:
    made = record("web", nics=(NicSpec(switch="nat"),), start=False)
    return noted(made, phase=Phase.READY)


def write(home: Path, id: str, value: VmRecord) -> None:
    (home / id).mkdir(parents=True, exist_ok=True)
    content = {"format": 2, "rev": 1, "record": msgspec.to_builtins(value)}
    (home / id / "vm.json").write_bytes(msgspec.json.encode(content))


class Host:
    """With a VM `vm-own` on `local`; `open` reads that and whatever lies on `carried`."""

    def __init__(self, directory: Path, *, own_users: bool = False) -> None:
        self.carried = directory / "carried"
        self.own = vm()
        write(directory / "local", "vm-own", self.own)
        homes = {"carried": self.carried, "local": directory / "local"}
        self.table = VmTable(
            context(
                directory,
                own_users=own_users,
                storage=SimpleNamespace(homes=lambda: homes, default="local"),
                network=SimpleNamespace(address_for=lambda _switch, _mac, taken: f"10.0.0.{len(taken) + 10}"),
                entropy=lambda count: next(numbers).to_bytes(count, "big"),
            ),
            durable=False,
        )
        self.drivers = self.table.drivers
        self._startup = Startup(self.table, *(cast(Any, None),) * 3)

    def open(self) -> None:
        async def story() -> None:
            await self._startup.open()
            await self.table.context.background.close()

        asyncio.run(story())


def test_a_newcomer_shares_nothing_with_the_vms_that_are_here(tmp_path: Path) -> None:
    host = Host(tmp_path)
    write(host.carried, "vm-new", vm())
    host.open()
    old, new = host.table.get("vm-own").value, host.table.get("vm-new").value
    assert old == host.own
    assert new.spec.name == "web-2"
    assert new.assigned.uid == UID_FIRST + 1
    assert new.assigned.uuid != old.assigned.uuid
    assert new.assigned.nics["nic0"].mac != old.assigned.nics["nic0"].mac
    assert new.assigned.nics["nic0"].ip not in ("", old.assigned.nics["nic0"].ip)
    assert set(host.drivers) == {"vm-own", "vm-new"}


def test_what_was_given_anew_stays(tmp_path: Path) -> None:
    host = Host(tmp_path)
    write(host.carried, "vm-new", vm())
    host.open()
    given = host.table.get("vm-new")
    again = Collection(VmRecord, noun="VM", inside="vm.json", upgrades=UPGRADES)
    assert again.add_root("carried", host.carried) == [given]


@pytest.mark.parametrize("uid", [0, 1000, -1, UID_FIRST - 1, 2**31, 2**32 - 1, 2**32])
def test_nobody_brings_a_user_that_is_not_a_vms(tmp_path: Path, uid: int) -> None:
    host = Host(tmp_path)
    write(host.carried, "vm-new", vm(uid=uid))
    host.open()
    assert host.table.get("vm-new").value.assigned.uid == UID_FIRST + 1


def test_a_newcomer_that_clashes_with_nobody_is_left_as_it_is(tmp_path: Path) -> None:
    host = Host(tmp_path)
    value = vm(name="db", uid=UID_FIRST + 7, uuid="other", cards={"nic0": Card(mac=MAC, ip="10.0.0.77")})
    write(host.carried, "vm-new", value)
    host.open()
    assert host.table.get("vm-new").value == value
    assert host.table.get("vm-new").rev == 1


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"name": "a,b"}, "$.name"),
        ({"name": "web\nx"}, "$.name"),
        ({"disks": (DiskSpec(name="../vm-own/disk0"),)}, "$.disks[0].name"),
        ({"disks": (DiskSpec(name="d"), DiskSpec(name="d"))}, "twice"),
        ({"cdroms": (CdromSpec(name="/etc"),)}, "$.cdroms[0].name"),
        ({"cards": {"a/b": Card(mac=MAC)}}, "$.nics[0].name"),
        ({"cards": {"a": Card(mac="52:54:00:1\n")}}, "not a MAC"),
        ({"cards": {"a": Card(mac=MAC, ip="1.2.3.4\nx")}}, "not an IPv4 address"),
        ({"disks": (DiskSpec(name="d", volume="local/vm-own.disk0"),)}, "is used by vm-own"),
    ],
)
def test_an_unsafe_record_is_refused_with_the_reason(
    tmp_path: Path, fields: dict[str, Any], word: str
) -> None:
    host = Host(tmp_path)
    write(tmp_path / "local", "vm-own", vm(disks=(DiskSpec(name="disk0"),)))
    write(host.carried, "vm-new", vm(**fields))
    host.open()
    assert set(host.drivers) == {"vm-own"}
    assert [record.id for record in host.table.all()] == ["vm-own"]
    assert word in host.table.broken[host.carried / "vm-new" / "vm.json"]


def test_a_directory_that_is_a_symbolic_link_is_no_vm(tmp_path: Path) -> None:
    host = Host(tmp_path)
    write(tmp_path / "elsewhere", "vm-new", vm(name="other"))
    host.carried.mkdir()
    (host.carried / "vm-new").symlink_to(tmp_path / "elsewhere" / "vm-new")
    host.open()
    assert set(host.drivers) == {"vm-own"}
    assert "plain" in host.table.broken[host.carried / "vm-new" / "vm.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_its_files_are_the_new_users_but_what_a_link_leads_to_is_not(tmp_path: Path) -> None:
    host = Host(tmp_path, own_users=True)
    victim = tmp_path / "victim"
    victim.touch()
    write(host.carried, "vm-new", vm(uid=0, disks=(DiskSpec(name="disk0"), DiskSpec(name="disk1"))))
    directory = host.carried / "vm-new"
    (directory / "disk0.qcow2").touch()
    (directory / "disk1.qcow2").symlink_to(victim)
    host.open()
    assert (directory / "disk0.qcow2").stat().st_uid == UID_FIRST + 1
    assert directory.stat().st_gid == UID_FIRST + 1
    assert victim.stat().st_uid == 0
