"""Secrets do not leave in a bundle: by name, by look, and because they are known."""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
import pytest

from thimble.contract import secret
from thimble.contract.call import Call
from thimble.contract.common import Out, Secret
from thimble.contract.document import Document
from thimble.contract.verbs import VERBS
from thimble.contract.vm import DirectBoot, SeedSpec, VmList, VmSpec
from thimble.dispatch.registry import Registry
from thimble.host.bundle import Bundle
from thimble.host.redact import GONE, Mask

KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\nabc\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"a {KEY} b", "MHcCAQEE"),
        ("cut off -----BEGIN PRIVATE KEY-----\nMHcCAQEE", "MHcCAQEE"),
        ("x scrypt$15$8$1$00ff$aa11 y", "00ff"),
        ("root:$6$rounds=9$salt$hash:1", "hash"),
        ("root:$y$j9T$salt$hash:1", "salt"),
        ("token " + "0a" * 32, "0a0a"),
        ("Authorization: Bearer abcdef.ghij", "abcdef"),
        ("from https://me:pw123@host/x", "pw123"),
        ("console=ttyS0 root_password=hunter22 quiet", "hunter22"),
        ("api_key: 'very secret words'", "very secret"),
    ],
)
def test_what_looks_secret_goes(text: str, secret: str) -> None:
    assert secret not in Mask().text(text)
    assert GONE in Mask().text(text)


def test_what_is_no_secret_stays() -> None:
    text = "3c:ec:ef:00:00:07 ready in 3.1 s, /dev/sda WD-WCC4N0 https://10.0.0.1/ $5 each"
    assert Mask().text(text) == text


def test_fields_that_are_called_so_go_whatever_they_hold() -> None:
    tree = {"seed": {"password_hash": "x", "user": "root"}, "tokens": ["a"], "none": None}
    assert Mask().tree(tree) == {
        "seed": {"password_hash": GONE, "user": "root"}, "tokens": GONE, "none": None,
    }  # fmt: skip
    assert Mask().tree({"password": ""}) == {"password": ""}


def test_marked_fields_of_the_contract_go() -> None:
    seed = SeedSpec(user="root", user_data="#cloud-config", password_hash="$6$x")
    shown = Mask().tree(VmSpec(name="web", seed=seed, direct=DirectBoot(kernel="k", cmdline="root_pin=12")))
    assert shown["seed"]["user_data"] == shown["direct"]["cmdline"] == GONE
    assert (shown["seed"]["user"], shown["direct"]["kernel"]) == ("root", "k")


class Inner(Out, frozen=True, kw_only=True):
    pin: Annotated[str, Secret]
    note: str = ""


class Answer(Out, frozen=True, kw_only=True):
    """Of a verb to come, with secrets that nothing else knows of."""

    phrases: tuple[Annotated[str, Secret], ...] = ()
    inner: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = msgspec.field(default_factory=dict)
    maybe: Annotated[str, Secret] | None = None


ANSWER = Answer(
    phrases=("alpha-1", "beta-2"),
    inner=(Inner(pin="gamma-3", note="plain"),),
    by_name={"a": Inner(pin="delta-4")},
    maybe="epsilon-5",
)
SECRETS = ["alpha-1", "beta-2", "gamma-3", "delta-4", "epsilon-5"]


def test_a_new_secret_field_needs_its_mark_and_nothing_else() -> None:
    """Neither bundle nor redaction are told of it: they find it by its mark."""

    class Host:
        async def get(self, _call: Call[None]) -> Answer:
            return ANSWER

    class Vms:
        async def list(self, _call: Call[None]) -> VmList:
            return VmList(rev=0, vms=())

    registry = Registry({"host": Host(), "vm": Vms()})
    made = Bundle(registry, Path("/nowhere"), known=list, now=lambda: 0.0)
    packed = asyncio.run(made.make("1"))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        file = archive.extractfile("thimble-support/host/host.json")
        assert file is not None
        text = file.read().decode()
    assert "plain" in text
    assert not [word for word in SECRETS if word in text]


def test_the_secrets_of_records_are_found_by_their_mark() -> None:
    assert sorted(secret.values([ANSWER])) == sorted(SECRETS)
    mask = Mask(secret.values(ANSWER))
    assert mask.text("a log line with gamma-3 in it") == f"a log line with {GONE} in it"


def structs() -> set[type[msgspec.Struct]]:
    """Every type of the contract."""
    found: set[type[msgspec.Struct]] = set()

    def walk(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            if kind not in found:
                found.add(kind)
                for hint in get_type_hints(kind, include_extras=True).values():
                    walk(hint)
        else:
            for part in get_args(kind):
                walk(part)

    for verb in VERBS:
        walk(verb.output)
        walk(verb.input)
    walk(Document)
    return found


def test_no_field_of_the_contract_that_is_called_a_secret_lacks_its_mark() -> None:
    named = re.compile(r"password|secret|^token$|^ticket$|private")
    forgotten = [
        f"{kind.__name__}.{field.name}"
        for kind in structs()
        for field in msgspec.structs.fields(kind)
        if named.search(field.name)
        and field.name not in secret.fields(kind)
        and "str" in str(get_type_hints(kind)[field.name])
    ]
    assert not forgotten


def test_what_is_known_goes_wherever_it_stands() -> None:
    mask = Mask(["correct horse battery", "first line\nsecond line", "ab"])
    assert mask.text("he said: correct horse battery!") == f"he said: {GONE}!"
    assert mask.tree(["x second line", {"note": "first line"}]) == [f"x {GONE}", {"note": GONE}]
    assert mask.text("about cab") == "about cab"
