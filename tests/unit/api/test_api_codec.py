"""What the description says a query parameter or header may be, is taken; what it excludes is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_client import DOCUMENT
from thimble.api import codec
from thimble.contract.verbs import BY_NAME, IDEMPOTENCY_KEY, IF_MATCH, PREFIX, VERBS, Verb
from thimble.core.problem import Code, Problem
from thimble.host import loglines

ASKED = [(verb, param.name) for verb in VERBS for param in verb.query]
parameters = pytest.mark.parametrize(("verb", "name"), ASKED, ids=lambda one: getattr(one, "name", one))


def schema(verb: Verb, name: str) -> dict[str, Any]:
    operation = DOCUMENT["paths"][PREFIX + verb.path.replace("*}", "}")][verb.method.lower()]
    found: dict[str, Any] = next(one["schema"] for one in operation["parameters"] if one["name"] == name)
    return found


def texts(described: dict[str, Any]) -> st.SearchStrategy[str]:
    """Whatever a client that reads the description may send."""
    if "enum" in described:
        return st.sampled_from(described["enum"])
    if described["type"] == "integer":
        highest = described.get("maximum", described.get("exclusiveMaximum", 0) - 1)
        return st.integers(described["minimum"], highest).map(str)
    if described["type"] == "number":
        highest, open_ = described.get("maximum"), described.get("exclusiveMaximum")
        bounds = {"max_value": highest if open_ is None else open_, "exclude_max": open_ is not None}
        return st.floats(described["minimum"], **bounds).map(repr)
    if "pattern" in described:
        return st.from_regex(described["pattern"].replace("$", r"\Z"))
    return st.text(max_size=described["maxLength"])


@parameters
@settings(max_examples=30)
@given(st.data())
def test_what_is_described_is_taken(verb: Verb, name: str, data: st.DataObject) -> None:
    value = data.draw(texts(schema(verb, name)))
    assert codec.query(verb, {name: value}) == ({name: value}, False)
    if verb.name == "host.logs":
        loglines.wanted({name: value})  # raises nothing either


@pytest.mark.parametrize(
    ("verb", "name", "value"),
    [
        ("task.get", "wait_s", "60.1"),
        ("task.get", "wait_s", "nan"),
        ("host.log", "lines", "0"),
        ("host.logs", "lines", "10001"),
        ("host.logs", "level", "loud"),
        ("host.logs", "since", "1e12"),
        ("host.logs", "source", "x" * 1001),
        ("host.health", "thorough", "perhaps"),
        ("image.upload", "sha256", "abc"),
        ("event.stream", "after", "-1"),
    ],
)
def test_what_is_excluded_is_refused_by_name(verb: str, name: str, value: str) -> None:
    with pytest.raises(Problem) as caught:
        codec.query(BY_NAME[verb], {name: value})
    assert (caught.value.code, caught.value.where) == (Code.INVALID, f"?{name}")
    assert caught.value.hint


@given(st.from_regex(IF_MATCH.replace("$", r"\Z")))
def test_every_described_etag_is_taken(header: str) -> None:
    assert codec.if_match(header) == (None if header == "*" else int(header.strip('"')))


@given(st.from_regex(IDEMPOTENCY_KEY.replace("$", r"\Z")))
def test_every_described_key_is_taken(header: str) -> None:
    assert codec.idempotency_key(header) == header.strip()


@pytest.mark.parametrize("header", ["7", "'7'", '"x"', 'W/"7"', '""', '"1234567890123456789"', '"7", "8"'])
def test_anything_else_is_no_etag(header: str) -> None:
    with pytest.raises(Problem):
        codec.if_match(header)
