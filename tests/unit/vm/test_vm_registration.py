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
from vm_examples import record

from thimble.contract.vm import NicSpec
from thimble.state.store import Collection
from thimble.vm.record.assign import UID_FIRST
from thimble.vm.record.spec import Cdrom, Disk, Nic, Phase, VmRecord
from thimble.vm.startup import Boot

MAC = "52:54:00:00:00:99"
numbers = itertools.count(1)


def vm(**more: object) -> VmRecord:
    made = record("web", nics=(NicSpec(switch="nat"),), start=False)
    return msgspec.structs.replace(made, phase=Phase.READY, **more)


def write(home: Path, id: str, value: VmRecord) -> None:
    (home / id).mkdir(parents=True)
    content = {"format": 1, "rev": 1, "record": msgspec.to_builtins(value)}
    (home / id / "vm.json").write_bytes(msgspec.json.encode(content))


class Host:
    """With a VM `vm-own` on `local`; `open` reads that and whatever lies on `carried`."""

    def __init__(self, directory: Path, *, own_users: bool = False) -> None:
        self.carried = directory / "carried"
        self.own = vm()
        write(directory / "local", "vm-own", self.own)
        self.store: Collection[VmRecord] = Collection(VmRecord, noun="VM", inside="vm.json", durable=False)
        homes = {"carried": self.carried, "local": directory / "local"}
        world = SimpleNamespace(
            run=directory / "run",
            own_users=own_users,
            clock=lambda: 1000.0,
            storage=SimpleNamespace(homes=lambda: homes, default="local"),
            network=SimpleNamespace(address_for=lambda _switch, _mac, taken: f"10.0.0.{len(taken) + 10}"),
            events=SimpleNamespace(listen=lambda _: None),
        )
        service = SimpleNamespace(store=self.store, drivers={}, world=world)
        self.drivers: dict[str, object] = service.drivers
        self._boot = Boot(cast(Any, service), lambda count: next(numbers).to_bytes(count, "big"))

    def open(self) -> None:
        asyncio.run(self._boot.open())


def test_a_newcomer_shares_nothing_with_the_vms_that_are_here(tmp_path: Path) -> None:
    host = Host(tmp_path)
    write(host.carried, "vm-new", vm())
    host.open()
    old, new = host.store.get("vm-own").value, host.store.get("vm-new").value
    assert old == host.own
    assert new.name == "web-2"
    assert new.uid == UID_FIRST + 1
    assert new.uuid != old.uuid
    assert new.nics[0].mac != old.nics[0].mac
    assert new.nics[0].ip not in ("", old.nics[0].ip)
    assert set(host.drivers) == {"vm-own", "vm-new"}


def test_what_was_given_anew_stays(tmp_path: Path) -> None:
    host = Host(tmp_path)
    write(host.carried, "vm-new", vm())
    host.open()
    given = host.store.get("vm-new")
    again = Collection(VmRecord, noun="VM", inside="vm.json")
    assert again.add_root("carried", host.carried) == [given]


@pytest.mark.parametrize("uid", [0, 1000, -1, UID_FIRST - 1, 2**31, 2**32 - 1, 2**32])
def test_nobody_brings_a_user_that_is_not_a_vms(tmp_path: Path, uid: int) -> None:
    host = Host(tmp_path)
    write(host.carried, "vm-new", vm(uid=uid))
    host.open()
    assert host.store.get("vm-new").value.uid == UID_FIRST + 1


def test_a_newcomer_that_clashes_with_nobody_is_left_as_it_is(tmp_path: Path) -> None:
    host = Host(tmp_path)
    nic = Nic(name="nic0", switch="nat", mac=MAC, ip="10.0.0.77")
    value = vm(name="db", uid=UID_FIRST + 7, uuid="other", nics=(nic,))
    write(host.carried, "vm-new", value)
    host.open()
    assert host.store.get("vm-new").value == value
    assert host.store.get("vm-new").rev == 1


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"name": "a,b"}, "$.name"),
        ({"name": "web\nx"}, "$.name"),
        ({"disks": (Disk(name="../vm-own/disk0"),)}, "$.disks[0].name"),
        ({"disks": (Disk(name="d"), Disk(name="d"))}, "twice"),
        ({"cdroms": (Cdrom(name="/etc"),)}, "$.cdroms[0].name"),
        ({"nics": (Nic(name="a/b", switch="nat", mac=MAC),)}, "$.nics[0].name"),
        ({"nics": (Nic(name="a", switch="nat", mac="52:54:00:1\n"),)}, "not a MAC"),
        ({"nics": (Nic(name="a", switch="nat", mac=MAC, ip="1.2.3.4\nx"),)}, "not an IPv4 address"),
        ({"disks": (Disk(name="d", volume="local/vm-own.disk0"),)}, "is used by vm-own"),
    ],
)
def test_an_unsafe_record_is_refused_with_the_reason(
    tmp_path: Path, fields: dict[str, Any], word: str
) -> None:
    host = Host(tmp_path)
    own = tmp_path / "local" / "vm-own" / "vm.json"
    value = msgspec.structs.replace(host.own, disks=(Disk(name="disk0"),))
    own.write_bytes(msgspec.json.encode({"format": 1, "rev": 1, "record": msgspec.to_builtins(value)}))
    write(host.carried, "vm-new", vm(**fields))
    host.open()
    assert set(host.drivers) == {"vm-own"}
    assert [record.id for record in host.store.all()] == ["vm-own"]
    assert word in host.store.broken[host.carried / "vm-new" / "vm.json"]


def test_a_directory_that_is_a_symbolic_link_is_no_vm(tmp_path: Path) -> None:
    host = Host(tmp_path)
    write(tmp_path / "elsewhere", "vm-new", vm(name="other"))
    host.carried.mkdir()
    (host.carried / "vm-new").symlink_to(tmp_path / "elsewhere" / "vm-new")
    host.open()
    assert set(host.drivers) == {"vm-own"}
    assert "plain" in host.store.broken[host.carried / "vm-new" / "vm.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_its_files_are_the_new_users_but_what_a_link_leads_to_is_not(tmp_path: Path) -> None:
    host = Host(tmp_path, own_users=True)
    victim = tmp_path / "victim"
    victim.touch()
    write(host.carried, "vm-new", vm(uid=0, disks=(Disk(name="disk0"), Disk(name="disk1"))))
    directory = host.carried / "vm-new"
    (directory / "disk0.qcow2").touch()
    (directory / "disk1.qcow2").symlink_to(victim)
    host.open()
    assert (directory / "disk0.qcow2").stat().st_uid == UID_FIRST + 1
    assert directory.stat().st_gid == UID_FIRST + 1
    assert victim.stat().st_uid == 0
