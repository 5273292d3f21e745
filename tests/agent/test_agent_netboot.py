"""What is against booting neighbours is said at once and nothing is begun. Booting them: tests/system."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_place import Agent, Cli

from thimble.client.http import Client
from thimble.contract.host import Role, TokenCreate
from thimble.contract.netboot import DocumentFor, Mode, ServeBoot
from thimble.contract.network import SwitchCreate, SwitchKind
from thimble.core.problem import Code, Problem

MAC = "52:54:00:00:00:07"


@pytest.fixture
def wire(client: Client) -> Iterator[str]:
    client.call("switch.create", SwitchCreate(name="wire", kind=SwitchKind.ISOLATED))
    yield "wire"
    client.call("switch.delete", path={"switch": "wire"})


def against(client: Client, wanted: ServeBoot) -> dict[str, str]:
    """Path and message of every blocker, but the one that this machine has no iPXE."""
    answer = client.call("netboot.serve", wanted, dry_run=True)
    assert answer.possible is False or not answer.blockers
    with pytest.raises(Problem) as refused:
        client.call("netboot.serve", wanted)
    assert [reason.message for reason in refused.value.reasons] == [one.message for one in answer.blockers]
    return {one.path: one.message for one in answer.blockers if one.path != "$"}


def test_it_is_off_until_somebody_says_so(client: Client, cli: Cli) -> None:
    assert client.call("netboot.get").on is False
    assert client.call("neighbour.list").neighbours == ()
    with pytest.raises(Problem) as refused:
        client.call("netboot.stop")
    assert refused.value.code is Code.NOT_FOUND
    assert cli("host", "serve-boot", "--off").returncode == 5
    assert cli.ok("host", "neighbours").strip()


def test_every_reason_is_told_with_its_path(client: Client, wire: str) -> None:
    broken = 'format = 1\n[host]\nnam = "x"\n'
    found = against(
        client,
        ServeBoot(
            switch=wire, allow=("52:54",), subnet="10.9.0.0/33",
            documents=(DocumentFor(match=MAC, text=broken), DocumentFor(match="any", text="{{who}}")),
        ),
    )  # fmt: skip
    assert set(found) == {"$.allow[0]", "$.subnet", "$.documents[0].text", "$.documents[1].text"}
    assert f"document for {MAC}: 3:1: " in found["$.documents[0].text"]
    assert client.call("netboot.get").settings is None


@pytest.mark.parametrize(
    ("wanted", "path", "words"),
    [
        (ServeBoot(switch="nat", allow=("any",)), "$.switch", "a NAT switch has no wire"),
        (ServeBoot(switch="gone", allow=("any",)), "$.switch", "there is no switch 'gone'"),
        (ServeBoot(switch="wire"), "$.allow", "nobody would be served"),
        (ServeBoot(switch="wire", allow=(MAC,), mode=Mode.PROXY, subnet="10.9.0.0/24"), "$.subnet", "0.2/24"),
        (ServeBoot(switch="wire", allow=("any",), subnet="8.8.8.0/24"), "$.subnet", "not private"),
    ],
)  # fmt: skip
def test_one_reason(client: Client, wire: str, wanted: ServeBoot, path: str, words: str) -> None:
    assert words in against(client, wanted)[path]


def test_only_an_administrator_serves(client: Client, agent: Agent, wire: str) -> None:
    token = client.call("token.create", TokenCreate(name="op", role=Role.OPERATOR)).token
    other = agent.client()
    other.token = token
    for verb in ("netboot.serve", "netboot.stop"):
        with pytest.raises(Problem) as refused:
            other.call(verb, ServeBoot(switch=wire, allow=("any",)) if verb == "netboot.serve" else None)
        assert refused.value.code is Code.FORBIDDEN
    assert other.call("netboot.get").on is False


def test_a_document_file_that_is_missing_is_told_before_anything_is_sent(cli: Cli, tmp_path: Path) -> None:
    told = cli("host", "serve-boot", "--switch", "wire", "--document", str(tmp_path / "none.toml"))
    assert told.returncode == 5 and "none.toml" in told.stderr
