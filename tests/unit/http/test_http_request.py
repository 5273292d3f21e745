"""Percent-encoding, undone without trust."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from thimble.core.problem import Problem
from thimble.http import request


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_unquoting_anything_gives_text_or_a_problem(raw: bytes) -> None:
    try:
        assert "\0" not in request.unquote(raw)
    except Problem as problem:
        assert problem.status == 400


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_what_is_quoted_comes_back(text: str) -> None:
    raw = text.encode(errors="replace").replace(b"\0", b"")
    assert request.unquote(b"".join(b"%%%02x" % byte for byte in raw)).encode() == raw
