"""The agent, composed as it is but not run, answers every verb of the contract in the contract's types."""

from __future__ import annotations

import pytest

from contract_fit import BY_NOUN, misfits
from thimble.app import Agent
from thimble.contract.verbs import VERBS
from thimble.dispatch.registry import Registry
from thimble.options import Options


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    where = tmp_path_factory.mktemp("agent")
    agent = Agent(Options(state=where / "state", run=where / "run", hosted=True))
    return agent.parts.registry


def test_there_is_a_service_for_each_noun_and_no_more(registry: Registry) -> None:
    assert registry.nouns == set(BY_NOUN)
    assert registry.missing(VERBS) == []


@pytest.mark.parametrize("noun", sorted(BY_NOUN))
def test_every_verb_has_a_method_of_the_contracts_types(registry: Registry, noun: str) -> None:
    assert misfits(noun, registry.service(noun)) == []
