"""What is published of the document: its schema is in step with the types, its example works."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
from document_host import FRESH, effects, replace
from jsonschema import Draft202012Validator

from thimble.document.facts import DeviceFacts
from thimble.document.read import read
from thimble.document.schema import schema
from thimble.storage.contents import Contents

DOCS = Path(__file__).parents[3] / "docs"


def example() -> str:
    found = re.search(r"```toml\n(.*?)```", (DOCS / "document.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_published_schema_is_that_of_the_types() -> None:
    assert (DOCS / "thimble.schema.json").read_bytes() == schema(), (
        "run: thimble document schema > docs/thimble.schema.json"
    )


def test_the_schema_is_sound_and_accepts_the_example() -> None:
    published = msgspec.json.decode(schema())
    Draft202012Validator.check_schema(published)
    tree = tomllib.loads(example())
    del tree["token"][0]["expires"]
    assert [error.message for error in Draft202012Validator(published).iter_errors(tree)] == [
        "'expires' is a required property"
    ]


def test_the_schema_refuses_what_reading_refuses() -> None:
    published = Draft202012Validator(msgspec.json.decode(schema()))
    assert published.is_valid({"format": 1, "vm": [{"name": "web1"}]})
    for tree in (
        {},
        {"format": 2},
        {"format": 1, "vms": []},
        {"format": 1, "vm": [{"name": "a", "vcpus": 0}]},
    ):
        assert not published.is_valid(tree)


def test_the_example_says_what_it_would_do() -> None:
    text = example().replace("format = 1\n", "", 1)
    disk = DeviceFacts(device="/dev/sdb", contents=Contents(kind="ntfs"), erasable=True)
    facts = replace(FRESH, devices={"serial:WD-WCC4N0123456": disk})
    assert read(example()).document.host is not None
    assert effects(text, facts) == [
        "renames the host thimble to rack7",
        "sends the log to udp://10.0.0.9:514",
        "sets how the host is updated: vms save",
        "erases serial:WD-WCC4N0123456 (/dev/sdb), which holds ntfs, and creates the datastore big on it",
        "creates switch lan on port 3c:ec:ef:00:00:02",
        "creates VM web1 with a 10 GiB disk",
        "starts VM web1",
        "hands tcp port 8080 of the host to web1, port 80",
        "changes the password of admin",
        "creates the token ci of admin, operator",
        "sets the management network to nic 3c:ec:ef:00:00:01, address 10.0.0.5/24, gateway 10.0.0.1, "
        "dns 10.0.0.1, ntp ntp1.example, ntp2.example",
    ]
