"""Requests and answers follow the contract's table, whatever the names in it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.client import wire
from thimble.contract.common import DryRun, Nothing
from thimble.contract.verbs import VERBS, Started
from thimble.contract.vm import Vm
from thimble.core.problem import Code, Problem, Reason


def test_a_volume_keeps_the_slash_of_its_name_and_a_vm_does_not() -> None:
    assert (
        wire.target(wire.verb("volume.delete"), {"volume": "local/a b"}, {}) == "/api/v1/volumes/local/a%20b"
    )
    assert wire.target(wire.verb("vm.get"), {"vm": "a/b?c"}, {}) == "/api/v1/vms/a%2Fb%3Fc"


def test_queries_without_a_value_are_left_out_and_a_dry_run_is_asked_for() -> None:
    verb = wire.verb("image.upload")
    assert wire.target(verb, {"image": "x"}, {"sha256": None}, dry_run=True) == "/api/v1/images/x?dry_run=1"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_change_the_path_is_refused(name: str) -> None:
    with pytest.raises(Problem) as caught:
        wire.target(wire.verb("vm.get"), {"vm": name}, {})
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_of_the_contract_can_be_asked(verb) -> None:
    names = [part.strip("{}*") for part in verb.path.split("/") if part.startswith("{")]
    target = wire.target(verb, dict.fromkeys(names, "x"), {})
    assert target.startswith("/api/v1/")
    assert "{" not in target


def test_a_path_that_lacks_a_name_is_our_own_fault() -> None:
    with pytest.raises(Problem) as caught:
        wire.target(wire.verb("vm.get"), {}, {})
    assert caught.value.code is Code.INTERNAL


def test_headers_carry_token_revision_and_key() -> None:
    sent = wire.headers(token="t", if_match=7, key="k")
    assert sent["Authorization"] == "Bearer t"
    assert sent["If-Match"] == '"7"'
    assert sent["Idempotency-Key"] == "k"


def test_the_output_type_is_the_verbs() -> None:
    assert wire.output_type(wire.verb("vm.get")) is Vm
    assert wire.output_type(wire.verb("vm.create")) is Started
    assert wire.output_type(wire.verb("vm.create"), dry_run=True) is DryRun
    assert wire.decode(b"", Nothing) == Nothing()


def test_an_answer_that_is_not_ours_is_told_as_such() -> None:
    with pytest.raises(Problem, match="cannot understand") as caught:
        wire.decode(b"<html>", Vm)
    assert caught.value.code is Code.FAILED


def test_a_problem_document_becomes_the_problem_it_was() -> None:
    sent = Problem(
        Code.NO_SPACE,
        "full",
        hint="delete something",
        reasons=(Reason(message="10 GiB missing", path="$.disks[0]"),),
    )
    got = wire.problem(507, msgspec.json.encode(sent.document()))
    assert (got.code, got.detail, got.hint, got.reasons) == (sent.code, sent.detail, sent.hint, sent.reasons)


@given(st.sampled_from([400, 401, 404, 413, 418, 500, 502, 503]), st.binary(max_size=300))
def test_any_other_error_answer_is_a_problem_too(status: int, body: bytes) -> None:
    got = wire.problem(status, body)
    assert isinstance(got.code, Code)
    assert str(status) in got.detail


def test_a_proxys_401_still_means_sign_in() -> None:
    assert wire.problem(401, b"nope").code is Code.UNAUTHENTICATED
