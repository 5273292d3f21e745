"""The table of verbs, and its description as OpenAPI."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from thimble.api import routes
from thimble.contract.common import In, Out
from thimble.contract.host import Role
from thimble.contract.openapi import answered, document
from thimble.contract.verbs import BY_NAME, PATHS, PREFIX, VERBS, Shape, Verb
from thimble.core.ids import name_reasons
from thimble.storage import refs
from thimble.storage.rules import image_name_reasons

DOCUMENT: dict[str, Any] = msgspec.json.decode(document("1.2.3"))
by_name = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)


def operation(verb: Verb) -> dict[str, Any]:
    path = PREFIX + verb.path.replace("*}", "}")
    found: dict[str, Any] = DOCUMENT["paths"][path][verb.method.lower()]
    return found


def test_names_and_paths_are_unique() -> None:
    assert len(BY_NAME) == len(VERBS)
    routes.tree(VERBS)


@by_name
def test_a_verb_is_written_as_the_others(verb: Verb) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z]+", verb.name) and verb.summary[0].isupper()
    assert re.fullmatch(r"(/[a-z]+|/\{[a-z]+\*?\})+", verb.path)
    assert "*" not in verb.path or verb.path.endswith("*}")
    assert verb.role in (*Role, None)
    assert issubclass(verb.output, Out)
    assert verb.input is None or issubclass(verb.input, In)


@by_name
def test_who_changes_something_is_no_mere_viewer(verb: Verb) -> None:
    own = verb.name.startswith("session.")
    assert not verb.mutates or own or verb.role in (Role.OPERATOR, Role.ADMIN)


@by_name
def test_inputs_refuse_unknown_fields(verb: Verb) -> None:
    if verb.input is not None:
        with pytest.raises(msgspec.ValidationError, match=r"unknown field|missing required"):
            msgspec.json.decode(b'{"no such field":1}', type=verb.input)


def test_create_and_change_are_different_types() -> None:
    for verb in VERBS:
        change = BY_NAME.get(verb.name.replace(".create", ".change"))
        assert change is None or change is verb or change.input is not verb.input


@by_name
def test_the_description_has_every_verb(verb: Verb) -> None:
    found = operation(verb)
    assert found["operationId"] == verb.name
    names = {parameter["name"] for parameter in found["parameters"] if parameter["in"] == "path"}
    assert names == {name.rstrip("*") for name in re.findall(r"\{([^}]+)\}", verb.path)}
    assert ("requestBody" in found) is (verb.input is not None or verb.shape is Shape.UPLOAD)
    assert found["responses"]["default"]
    assert ("security" in found) is (verb.role is None)


def test_the_description_is_sound() -> None:
    assert DOCUMENT["openapi"] == "3.1.0" and DOCUMENT["info"]["version"] == "1.2.3"
    assert sum(len(path) for path in DOCUMENT["paths"].values()) == len(VERBS)
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', document("1").decode()))
    assert used <= set(DOCUMENT["components"]["schemas"])


def test_what_takes_only_defaults_needs_no_body() -> None:
    assert not operation(BY_NAME["vm.stop"])["requestBody"]["required"]
    assert operation(BY_NAME["vm.create"])["requestBody"]["required"]


def test_a_task_is_answered_with_what_was_started() -> None:
    for verb in VERBS:
        if verb.shape is Shape.TASK:
            assert answered(verb).__name__ == "Started" and "202" in operation(verb)["responses"]


def test_the_smallest_vm_is_a_name() -> None:
    schema = {**DOCUMENT["components"]["schemas"]["VmCreate"], "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate({"name": "web1"})
    assert not Draft202012Validator(schema).is_valid({"name": "web1", "colour": "red"})


NAMES = st.one_of(
    st.text(st.sampled_from("abAB09-._+~/ é\n"), max_size=6), st.text("a.-/", min_size=60, max_size=70)
)


@given(NAMES)
def test_what_is_described_of_a_name_is_what_the_rules_take(name: str) -> None:
    pattern, longest = PATHS["vm"]
    described = re.search(pattern.replace("$", r"\Z"), name) is not None and len(name) <= longest
    assert described is (not name_reasons(name, "$"))


@given(NAMES)
def test_what_is_described_of_an_image_is_what_the_rules_take(name: str) -> None:
    pattern, longest = PATHS["image"]
    described = re.search(pattern.replace("$", r"\Z"), name) is not None and len(name) <= longest
    ref = refs.parse(name, "local")
    taken = not name_reasons(ref.datastore, "$") and not image_name_reasons(ref.name, "$")
    assert taken <= described, "whatever is taken is described"


def test_every_name_in_a_path_and_every_query_parameter_is_described() -> None:
    for verb in VERBS:
        for parameter in operation(verb)["parameters"]:
            schema = parameter["schema"]
            Draft202012Validator.check_schema(schema)
            bounded = {"maxLength", "maximum", "exclusiveMaximum", "enum", "pattern"} & set(schema)
            assert bounded, f"{verb.name}: {parameter['name']} has no bound"


def test_only_verbs_that_honour_if_match_say_so() -> None:
    for verb in VERBS:
        headers = {one["name"] for one in operation(verb)["parameters"] if one["in"] == "header"}
        assert ("If-Match" in headers) is verb.guarded and ("Idempotency-Key" in headers) is verb.keyed
        assert not verb.guarded or verb.mutates
