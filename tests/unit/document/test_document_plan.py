"""What a document would do to a host, in words; and that nothing is left to do when it is done."""

from __future__ import annotations

import string
from typing import Any

import pytest
from document_host import (
    DATA,
    FRESH,
    HASH,
    after,
    blockers,
    effects,
    planned,
    replace,
    with_device,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thimble.contract.vm import Intent, PowerState
from thimble.core.problem import Problem
from thimble.document import export, plan, toml
from thimble.document.read import read
from thimble.storage.contents import Contents
from thimble.vm.record.view import HIDDEN

WEB = (
    '[[vm]]\nname = "web1"\nmemory_mib = 512\ndisks = [{ size_bytes = 1048576 }]\n'
    'nics = [{ switch = "lan" }]\n'
)
LAN = '[[switch]]\nname = "lan"\nkind = "bridged"\nuplink = "3c:ec:ef:00:00:02"\n'
NAT = '[[switch]]\nname = "nat"\nkind = "nat"\nforwards = [{ port = 80, vm = "web1", to_port = 80 }]\n'


def test_an_empty_document_changes_nothing() -> None:
    found = planned("")
    assert found == plan.Plan(effects=(), blockers=(), warnings=(), drift=())


def test_what_others_need_comes_first() -> None:
    text = (
        f'[host]\nname = "rack7"\n[management]\naddress = "10.0.0.5/24"\ngateway = "10.0.0.1"\n'
        '[time]\nservers = ["t1"]\n'
        f'[[user]]\nname = "ann"\nrole = "admin"\npassword_hash = "{HASH}"\n{NAT}{LAN}{WEB}'
    )
    assert effects(text) == [
        "renames the host thimble to rack7",
        "creates switch lan on port 3c:ec:ef:00:00:02",
        "creates VM web1 with a 1 MiB disk",
        "starts VM web1",
        "hands tcp port 80 of the host to web1, port 80",
        "creates the admin ann",
        "sets the management network to address 10.0.0.5/24, gateway 10.0.0.1, ntp t1",
    ]
    done = after(text)
    assert done.switches["lan"].uplink == "eno2"
    assert effects(text, done) == [] and blockers(text, done) == []


def test_a_cold_change_restarts_a_running_vm_and_a_hot_one_does_not() -> None:
    now = after(LAN + WEB)
    assert effects(LAN + WEB.replace("512", "1024"), now) == [
        "changes VM web1: memory 512 → 1024 MiB",
        "restarts VM web1 (memory 512 → 1024 MiB)",
    ]
    more = WEB.replace("nics = [", 'nics = [{ switch = "nat" }, ')
    assert effects(LAN + more, now)[0].startswith("changes VM web1: nics")
    hot = WEB.replace("size_bytes = 1048576 }", "size_bytes = 1048576 }, { size_bytes = 4096 }")
    assert effects(LAN + hot, now) == ["changes VM web1: disks"]
    assert effects(LAN + WEB.replace("512", "512\nvcpus = 2"), after(LAN + WEB, now)) == [
        "changes VM web1: vcpus 1 → 2",
        "restarts VM web1 (vcpus 1 → 2)",
    ]


def test_what_waits_for_a_cold_start_since_before_restarts_the_vm() -> None:
    now = after(LAN + WEB)
    (web,) = now.vms
    cut_off = replace(now, vms=(replace(web, pending=("memory 256 → 512 MiB",)),))
    assert effects(LAN + WEB, cut_off) == ["restarts VM web1 (memory 256 → 512 MiB)"]


def test_states_follow_the_document() -> None:
    stopped = LAN + WEB.replace("memory", 'state = "stopped"\nmemory')
    now = after(LAN + WEB)
    assert effects(stopped, now) == ["shuts VM web1 down", "changes VM web1: autostart"]
    off = after(stopped, now)
    assert effects(stopped, off) == []
    assert effects(LAN + WEB, off) == ["changes VM web1: autostart", "starts VM web1"]
    (web,) = now.vms
    paused = replace(now, vms=(replace(web, state=PowerState.PAUSED),))
    assert effects(LAN + WEB, paused) == ["lets VM web1 run on"]
    crashed = replace(now, vms=(replace(web, state=PowerState.CRASHED, running=None),))
    assert effects(LAN + WEB, crashed) == ["starts VM web1"]
    assert effects(stopped, crashed)[0] == "shuts VM web1 down", "no crash policy starts it again"
    deleting = replace(now, vms=(replace(web, state=PowerState.DELETING),))
    assert "just being deleted" in blockers(LAN + WEB, deleting)[0]


def test_what_a_vm_is_for_life_is_refused() -> None:
    now = after(LAN + WEB)
    assert blockers(LAN + WEB.replace("512", "512\nserial = false"), now) == [
        "the serial of a VM is for life: this one has True"
    ]
    assert "cannot be moved yet" in blockers(LAN + WEB.replace("512", '512\ndatastore = "big"'), now)[0]
    assert (
        "the disk disk0 is qcow2: write that"
        in blockers(LAN + WEB.replace("1048576", '1048576, format = "raw"'), now)[0]
    )


@pytest.mark.parametrize(
    ("disk", "field", "words"),
    [
        ("size_bytes = 524288", "size_bytes", "has 1048576 bytes, and that cannot be changed yet"),
        ("size_bytes = 2097152", "size_bytes", "has 1048576 bytes, and that cannot be changed yet"),
        ('size_bytes = 1048576, image = "a.img"', "image", "was made empty"),
        ('volume = "kept"', "volume", "is one of its own"),
    ],
)
def test_a_disk_cannot_become_another_one_under_its_name(disk: str, field: str, words: str) -> None:
    changed = WEB.replace("size_bytes = 1048576", disk)
    (blocker,) = planned(LAN + changed, after(LAN + WEB)).blockers
    assert blocker.at == ("vm", 0, "disks", 0, field)
    assert words in blocker.message and "or give it another name" in blocker.message
    renamed = WEB.replace("size_bytes = 1048576", f'name = "new", {disk}')
    assert blockers(LAN + renamed, after(LAN + WEB)) == []


def test_stops_come_before_starts() -> None:
    two = LAN + WEB + WEB.replace("web1", "web2").replace("memory", 'state = "stopped"\nmemory')
    swapped = LAN + WEB.replace("memory", 'state = "stopped"\nmemory') + WEB.replace("web1", "web2")
    lines = effects(swapped, after(two))
    assert lines.index("shuts VM web1 down") < lines.index("starts VM web2")


def test_what_is_not_mentioned_is_drift_and_stays() -> None:
    now = after(f'{LAN}{WEB}[[user]]\nname = "ann"\npassword_hash = "{HASH}"\n')
    assert planned("", now).drift == (
        "VM web1 is not in the document",
        "switch lan is not in the document",
    )
    only_ann = '[[user]]\nname = "ann"\n'
    assert planned(only_ann, now).drift[-1] == "user admin is not in the document"
    assert effects(only_ann, now) == []


def test_a_new_user_needs_a_hash_and_a_known_one_does_not() -> None:
    assert "needs a password_hash" in blockers('[[user]]\nname = "bob"\n')[0]
    assert effects('[[user]]\nname = "admin"\nrole = "operator"\n') == ["makes admin operator"]
    text = f'[[user]]\nname = "admin"\nrole = "admin"\npassword_hash = "{HASH}"\n'
    assert effects(text) == ["changes the password of admin"]
    assert effects(text, after(text)) == []


def test_a_token_that_differs_is_replaced() -> None:
    text = f'[[token]]\nname = "ci"\nuser = "admin"\nsha256 = "{"a" * 64}"\nexpires = 2030-01-01T00:00:00Z\n'
    now = after(text)
    assert effects(text.replace("00:00Z", "00:00+00:00"), now) == []
    later = text.replace("2030", "2031")
    assert effects(later, now) == ["replaces the token ci of admin, viewer"]
    assert effects(later, after(later, now)) == []


DISK = '[[datastore]]\nname = "big"\nkind = "disk"\ndevice = "serial:S1"\n'


def test_a_datastore_that_is_found_is_taken_over_and_never_formatted() -> None:
    facts = with_device("serial:S1", "/dev/sdb", DATA, erasable=True)
    text = f'[install]\nerase = ["serial:S1"]\n{DISK}format = true\nerase = true\n'
    assert effects(text, facts) == ["takes over the datastore on serial:S1 (/dev/sdb) as big"]
    (effect,) = planned(text, facts).effects
    given: Any = effect.asks[0].input
    assert (given.device, given.format, given.erase) == ("/dev/sdb", False, False)
    assert effects(text, after(text, facts)) == []


def test_a_blank_disk_is_formatted_only_when_asked() -> None:
    facts = with_device("serial:S1", "/dev/sdb")
    assert "is blank: write format = true" in blockers(DISK, facts)[0]
    assert effects(DISK + "format = true\n", facts) == [
        "formats serial:S1 (/dev/sdb) and creates the datastore big on it"
    ]


def test_a_disk_with_something_on_it_is_erased_only_when_it_is_listed() -> None:
    ntfs = Contents(kind="ntfs")
    facts = with_device("serial:S1", "/dev/sdb", ntfs)
    text = DISK + "format = true\n"
    assert "holds ntfs: write erase = true" in blockers(text, facts)[0]
    assert "is not named in install.erase" in blockers(text + "erase = true\n", facts)[0]
    facts = with_device("serial:S1", "/dev/sdb", ntfs, erasable=True)
    assert effects(text + "erase = true\n", facts) == [
        "erases serial:S1 (/dev/sdb), which holds ntfs, and creates the datastore big on it"
    ]


def test_a_disk_that_is_missing_is_told() -> None:
    assert blockers(DISK) == ["there is no disk serial:S1 on this host"]
    now = after(DISK + "format = true\n", with_device("serial:S1", "/dev/sdb"))
    gone = replace(now, devices={})
    assert planned(DISK, gone).warnings == ("the disk serial:S1 of the datastore big is not there",)


def test_what_is_another_thing_of_the_same_name_is_refused() -> None:
    now = after(LAN + '[[datastore]]\nname = "fast"\nkind = "ram"\nsize_bytes = 8388608\n')
    assert (
        "is bridged, and that cannot be changed"
        in blockers('[[switch]]\nname = "lan"\nkind = "isolated"\n', now)[0]
    )
    assert "is on port eno2" in blockers(LAN.replace("00:02", "00:01"), now)[0]
    assert (
        "has the subnet"
        in blockers('[[switch]]\nname = "nat"\nkind = "nat"\nsubnet = "10.9.0.0/24"\n', now)[0]
    )
    assert (
        "is another one"
        in blockers('[[datastore]]\nname = "fast"\nkind = "ram"\nsize_bytes = 4194304\n', now)[0]
    )


def test_a_hosted_agent_leaves_the_network_alone() -> None:
    hosted = replace(FRESH, managed=False)
    found = planned('[management]\naddress = "off"\n', hosted)
    assert found.effects == () and "another operating system" in found.warnings[0]


def test_certificates_are_added_once_whatever_stands_around_them() -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----"
    text = f'[update]\ntrust = ["""\n{pem}\n"""]\n'
    assert "takes no updates" in planned(text).warnings[0]
    assert effects(text, replace(FRESH, keys=(f"words\n{pem}\nmore\n",))) == []


# ── properties ───────────────────────────────────────────────────────────────────────────────────

names = st.text(string.ascii_lowercase, min_size=1, max_size=6)


def entries(of: st.SearchStrategy[dict[str, Any]], most: int = 4) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(of, max_size=most, unique_by=lambda one: one["name"])


disks = st.fixed_dictionaries(
    {"size_bytes": st.integers(1, 64).map(lambda n: n * 512)},
    optional={"bus": st.sampled_from(["virtio", "nvme", "sata"]), "image": st.just("local/x.qcow2")},
)
vms = st.fixed_dictionaries(
    {"name": names},
    optional={
        "state": st.sampled_from(["running", "stopped"]),
        "memory_mib": st.integers(64, 4096),
        "vcpus": st.integers(1, 8),
        "firmware": st.sampled_from(["uefi", "bios"]),
        "disks": st.lists(disks, max_size=3),
        "nics": st.lists(st.just({"switch": "nat"}), max_size=2),
        "autostart": st.fixed_dictionaries({"enabled": st.booleans()}),
        "description": st.text(max_size=20),
        "seed": st.fixed_dictionaries(
            {"user_data": st.text(max_size=40).filter(lambda text: text != HIDDEN)}
        ),
        "vga": st.booleans(),
        "on_crash": st.sampled_from(["stop", "restart"]),
    },
)
switches = st.one_of(
    st.fixed_dictionaries({"name": names, "kind": st.just("isolated")}),
    st.fixed_dictionaries({"name": names, "kind": st.just("nat")}),
    st.fixed_dictionaries(
        {"name": names, "kind": st.just("bridged"), "uplink": st.just("3c:ec:ef:00:00:02")}
    ),
)
documents = st.fixed_dictionaries(
    {"format": st.just(1)},
    optional={
        "host": st.fixed_dictionaries({"name": names}),
        "time": st.fixed_dictionaries({"servers": st.just(["ntp.example"])}),
        "management": st.fixed_dictionaries({"dns": st.just(["10.0.0.1"])}),
        "user": entries(st.fixed_dictionaries({"name": names, "password_hash": st.just(HASH)})),
        "switch": entries(switches),
        "vm": entries(vms),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=documents, second=documents)
def test_applying_twice_leaves_nothing_to_do_and_so_does_applying_what_is_exported(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    found = FRESH
    for tree in (first, second):
        text = toml.write({key: value for key, value in tree.items() if key != "format"})
        if planned(text, found).blockers:
            continue
        found = after(text, found)
        again = planned(text, found)
        assert (again.effects, again.blockers) == ((), ())
    exported = plan.plan(read(export.text(found)).document, found)
    assert (exported.effects, exported.blockers, exported.drift) == ((), (), ())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=documents, cut=st.integers(0, 12))
def test_cut_off_anywhere_and_applied_again_ends_right(tree: dict[str, Any], cut: int) -> None:
    from document_host import done

    text = toml.write({key: value for key, value in tree.items() if key != "format"})
    found = planned(text)
    if found.blockers:
        return
    facts = FRESH
    for ask in [ask for effect in found.effects for ask in effect.asks][:cut]:
        facts = done(ask, facts)
    assert effects(text, after(text, facts)) == []


def test_an_export_is_brief_and_readable() -> None:
    text = (
        f'[host]\nname = "rack7"\n{NAT}{WEB.replace("lan", "nat")}'
        f'[[user]]\nname = "ann"\npassword_hash = "{HASH}"\n'
    )
    exported = export.text(after(text))
    mac = after(text).vms[0].record.definition.nics[0].mac[:8]
    body = exported[exported.index("format") :]
    assert body.startswith('format = 1\n\n[host]\nname = "rack7"\n\n[[user]]\nname = "admin"\n')
    assert "[[vm]]\n" in body and 'name = "web1"' in body and 'state = "running"' in body
    assert f'mac = "{mac}' in body
    for left_out in ("autostart", "balloon", "description", "datastore", "uplink", "subnet"):
        assert left_out not in body


@pytest.mark.parametrize("intent", list(Intent))
def test_a_vm_that_crashed_is_exported_as_it_was_wanted(intent: Intent) -> None:
    now = after(LAN + WEB)
    (web,) = now.vms
    record = replace(web.record, noted=replace(web.record.noted, intent=intent))
    crashed = replace(now, vms=(replace(web, record=record, state=PowerState.CRASHED, running=None),))
    assert f'state = "{intent}"' in export.text(crashed)


def test_the_log_goes_where_the_document_says() -> None:
    text = '[log]\nsyslog = "tcp://logs.example:6514"\n'
    assert effects(text) == ["sends the log to tcp://logs.example:6514"]
    done = after(text)
    assert effects(text, done) == [] and effects("", done) == []
    assert effects('[log]\nsyslog = ""\n', done) == ["sends the log nowhere"]
    with pytest.raises(Problem) as problem:
        planned('[log]\nsyslog = "logs.example"\n')
    assert (problem.value.reasons[0].path, problem.value.reasons[0].line) == ("$.log.syslog", 3)


def test_how_the_host_is_updated_is_set_once_and_exported() -> None:
    text = '[update]\nurl = "https://updates.example/thimble.efi"\nvms = "save"\nreboot = "firmware"\n'
    assert effects(text) == [
        "sets how the host is updated: url https://updates.example/thimble.efi, vms save, reboot firmware"
    ]
    done = after(text)
    assert done.policy.vms == "save" and effects(text, done) == []
    assert export.document(done).update == read(f"format = 1\n{text}").document.update
    assert effects("[update]\n", done) == ["sets how the host is updated: url none, vms policy, reboot kexec"]
    assert effects("", done) == []
