"""First-boot data: what is in it, and that others can read it."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from msgspec.structs import replace
from vm_examples import SEED

from thimble.contract.host import Role
from thimble.contract.vm import SeedMethod, SeedSpec
from thimble.core.problem import Problem
from thimble.image import toolbox
from thimble.vm.qemu import fat, seed
from thimble.vm.record import view


def test_nocloud_says_who_the_guest_is() -> None:
    files = seed.nocloud(SEED, "vm-1", "web1", "52:54:00:00:00:01")
    assert json.loads(files["meta-data"]) == {"instance-id": "vm-1", "local-hostname": "web1"}
    head, _, body = files["user-data"].partition(b"\n")
    assert head == b"#cloud-config"
    assert json.loads(body)["users"][0]["ssh_authorized_keys"] == ["ssh-ed25519 AAAA me"]
    assert json.loads(files["network-config"])["ethernets"]["nic0"]["dhcp4"] is True


def test_own_user_data_wins() -> None:
    mine = replace(SEED, user_data="#cloud-config\nruncmd: [reboot]\n")
    assert seed.nocloud(mine, "vm-1", "web1", "")["user-data"] == mine.user_data.encode()


def test_a_static_address_is_in_both_forms() -> None:
    static = replace(SEED, address="10.0.0.5/24", gateway="10.0.0.1", dns=("10.0.0.1",))
    card = json.loads(seed.nocloud(static, "vm-1", "w", "52:54:00:00:00:01")["network-config"])["ethernets"][
        "nic0"
    ]
    assert card["addresses"] == ["10.0.0.5/24"]
    assert card["routes"] == [{"to": "0.0.0.0/0", "via": "10.0.0.1"}]
    unit = seed.credentials(static, "w", "52:54:00:00:00:01")["network.network.10-thimble"].decode()
    assert "Address=10.0.0.5/24\nGateway=10.0.0.1\nDNS=10.0.0.1" in unit


def test_credentials_for_root_and_for_others() -> None:
    root = seed.credentials(replace(SEED, user="root"), "w", "")
    assert root["ssh.authorized_keys.root"] == b"ssh-ed25519 AAAA me\n"
    assert root["passwd.hashed-password.root"] == b"$6$salt$hash"
    ann = seed.credentials(SEED, "w", "")
    assert b"/home/ann/.ssh/authorized_keys" in ann["tmpfiles.extra"]
    assert ann["sysusers.extra"].startswith(b"u ann ")


def test_no_credentials_where_only_nocloud_is_wanted() -> None:
    assert seed.credentials(replace(SEED, method=SeedMethod.NOCLOUD), "w", "") == {}


def test_a_credential_survives_smbios() -> None:
    text = seed.smbios("a.b", b"\0\xff\n")
    assert base64.b64decode(text.partition(b"=")[2]) == b"\0\xff\n"


def test_secrets_are_hidden_and_come_back() -> None:
    shown = view.shown_seed(replace(SEED, user_data="mine"), Role.VIEWER)
    assert shown is not None
    assert (shown.password_hash, shown.user_data) == (view.HIDDEN, view.HIDDEN)
    assert view.kept_seed(shown, replace(SEED, user_data="mine")) == replace(SEED, user_data="mine")
    assert view.kept_seed(SeedSpec(), SEED) == SeedSpec()


@settings(max_examples=8, deadline=None)
@given(
    some.dictionaries(
        some.sampled_from(["meta-data", "user-data", "network-config", "a", "x" * 40]),
        some.binary(max_size=9000),
    )
)
def test_mtools_reads_what_we_packed(files: dict[str, bytes]) -> None:
    mcopy = toolbox.ensure(lambda *_: None).wrappers / "mcopy"
    image = Path("/tmp") / f"thimble-test-{id(files)}.img"
    image.write_bytes(fat.image(files, label="CIDATA"))
    try:
        for name, data in files.items():
            got = subprocess.run(
                [mcopy, "-n", "-i", image, f"::{name}", "-"], capture_output=True, check=True
            )
            assert got.stdout == data
    finally:
        image.unlink()


def test_the_label_is_where_guests_look_for_it() -> None:
    image = fat.image({"meta-data": b"x"}, label="CIDATA")
    assert image[43:54] == b"CIDATA     "
    assert len(image) % 512 == 0
    assert image[510:512] == b"\x55\xaa"


def test_too_much_is_refused() -> None:
    with pytest.raises(Problem, match="8 MB"):
        fat.image({"user-data": bytes(9_000_000)}, label="CIDATA")
