"""Whatever is sent, the answer is ours and never a 500."""
# ruff: noqa: E501

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_client import ask, run
from api_world import World
from contract_fit import check_stand_ins
from thimble.api import routes
from thimble.contract.verbs import PREFIX, VERBS, Shape

WORLD = World(Path(tempfile.mkdtemp(prefix="thimble-fuzz-")))
TREE = routes.tree(VERBS)
SERVED = [
    verb for verb in VERBS if verb.name.partition(".")[0] in WORLD.nouns and verb.shape is not Shape.EVENTS
]

json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    ["name", "role", "password", "user", "old", "new", "kind", "forwards", "expires_s", "x"]
)
bodies = st.binary(max_size=60) | json.map(_encoded := lambda tree: _json(tree)) | st.dictionaries(fields, json, max_size=4).map(_encoded)  # fmt: skip
segments = st.text(max_size=12) | st.sampled_from(
    ["api", "v1", "vms", "images", "users", "admin", "..", "%00"]
)
headers = st.dictionaries(
    st.sampled_from(["content-type", "if-match", "idempotency-key", "content-length", "cookie", "origin", "authorization"]),
    st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=30),
    max_size=3,
)  # fmt: skip


def _json(tree: object) -> bytes:
    try:
        return msgspec.json.encode(tree)
    except (ValueError, OverflowError, msgspec.EncodeError):
        return repr(tree).encode(errors="replace")


def sendable(text: str) -> bool:
    return not set("?\r\n") & set(text)


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE", "x"]),
    st.lists(segments, max_size=6),
)
def test_any_path_and_method(method: str, path: list[str]) -> None:
    target = "/" + "/".join(filter(sendable, path)).encode(errors="replace").decode()
    got = run(ask(WORLD, method, target, token=WORLD.admin()))
    assert got.status not in (0, 500)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SERVED),
    bodies,
    headers,
    st.text(max_size=12),
)
def test_any_body_and_header_for_any_verb(
    verb: object, body: bytes, sent: dict[str, str], query: str
) -> None:
    assert isinstance(verb, type(VERBS[0]))
    path = PREFIX + verb.path.replace("{user}", "ann").replace("{", "").replace("}", "").replace("*", "")
    mark = "?" + query.encode(errors="replace").decode().replace("?", "") if query else ""
    got = run(ask(WORLD, verb.method, path + mark, body, token=WORLD.admin(), headers=sent))
    assert got.status not in (0, 500)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(VERBS), st.data())
def test_every_verb_is_found_at_its_path_with_its_parameters(verb: object, data: st.DataObject) -> None:
    assert isinstance(verb, type(VERBS[0]))
    piece = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=8)
    path, wanted = [], {}
    for segment in verb.path.strip("/").split("/"):
        if not segment.startswith("{"):
            path.append(segment)
            continue
        values = data.draw(
            st.lists(piece, min_size=1, max_size=3)
            if "*" in segment
            else st.lists(piece, min_size=1, max_size=1)
        )
        wanted[segment.strip("{}*")] = "/".join(values)
        path += values
    found = routes.find(TREE, path)
    assert found is not None
    if found.verbs.get(verb.method) is verb:  # unless the value happens to be a literal beside it
        assert found.path == wanted
    else:
        assert any(value in ("ticket", "password") for value in wanted.values())


def test_a_stand_in_that_lacks_a_method_of_the_contract_is_named() -> None:
    with pytest.raises(AssertionError, match=r"image\.list: there is no such method"):
        check_stand_ins({"image": object()})
