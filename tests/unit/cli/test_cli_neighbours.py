"""`thimble host serve-boot|neighbours`: what is sent, what is shown, and one command for all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from thimble.cli import neighbours as cli
from thimble.client import profile
from thimble.client.profile import Profile
from thimble.contract.common import DryRun, Effect, Nothing
from thimble.contract.host import Role
from thimble.contract.host import Session as Granted
from thimble.contract.netboot import (
    DocumentFor,
    Mode,
    Neighbour,
    NeighbourList,
    NeighbourReport,
    NeighbourVm,
    Netboot,
    ServeBoot,
    Stage,
)
from thimble.core.problem import Code, Problem

MAC = "52:54:00:12:34:56"
SETTINGS = ServeBoot(
    switch="rack", allow=(MAC,), documents=(DocumentFor(match="any", text=""),), subnet="10.9.0.0/24"
)
ON = Netboot(
    on=True,
    rev=3,
    settings=SETTINGS,
    address="10.9.0.1",
    image_bytes=150 << 20,
    bytes_sent=1 << 30,
    refused=4,
)


def neighbour(number: int, *, stage: Stage = Stage.APPLIED, reported: bool = True, **more: Any) -> Neighbour:
    ip = f"10.9.0.{100 + number}"
    report = NeighbourReport(
        stage=stage,
        name=f"rack{number}",
        url=f"https://{ip}/",
        certificate_sha256=f"{number:02x}" * 32,
        vms=(NeighbourVm(name="web1", state="running"), NeighbourVm(name="db1", state="stopped")),
        problem="http://10.9.0.1/n/x/thimble.toml: line 3 is wrong" if stage is Stage.FAILED else "",
    )
    fields: dict[str, Any] = {
        "number": number,
        "mac": f"52:54:00:12:34:{number:02x}",
        "serial": f"S4EVNX{number}",
        "ip": ip,
        "document": "any",
        "stage": stage,
        "seen": time.time() - 12,
        "report": report if reported else None,
    }
    return Neighbour(**(fields | more))


def found(*neighbours: Neighbour) -> NeighbourList:
    return NeighbourList(rev=1, neighbours=neighbours)


# ── serving ──────────────────────────────────────────────────────────────────────────────────────


def test_what_is_typed_is_what_is_sent(host, thimble, tmp_path: Path) -> None:
    for name in ("rack.toml", "one.toml", "a=b.toml"):
        (tmp_path / name).write_text(f"# {name}\n")
    host.answers["netboot.serve"] = ON
    line = thimble(
        "host", "serve-boot", "--switch", "rack", "--subnet", "10.9.0.0/24", "--most", "8",
        "--allow", MAC, "--allow", "serial:S1",
        "--document", str(tmp_path / "rack.toml"),
        "--document", f"{MAC}={tmp_path / 'one.toml'}",
        "--document", f"serial:S1={tmp_path / 'a=b.toml'}",
        "--image", "https://x/thimble.efi",
    )  # fmt: skip
    assert line.code == 0, line.err
    assert host.body("netboot.serve") == {
        "switch": "rack",
        "mode": "dhcp",
        "subnet": "10.9.0.0/24",
        "allow": [MAC, "serial:S1"],
        "documents": [
            {"match": "any", "text": "# rack.toml\n"},
            {"match": MAC, "text": "# one.toml\n"},
            {"match": "serial:S1", "text": "# a=b.toml\n"},
        ],
        "image": "https://x/thimble.efi",
        "most": 8,
    }
    assert "at 10.9.0.1" in line.out and "the running image, 150 MiB" in line.out


def test_beside_another_dhcp_server_and_with_what_nobody_said(host, thimble) -> None:
    host.answers["netboot.serve"] = ON
    assert thimble("host", "serve-boot", "--switch", "rack", "--proxy", "--allow", "any").code == 0
    sent = msgspec.convert(host.body("netboot.serve"), ServeBoot)
    assert sent == ServeBoot(switch="rack", mode=Mode.PROXY, allow=("any",))


def test_a_file_with_an_equals_sign_in_its_name_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a=b.toml"
    path.write_text("format = 1\n")
    assert cli.document(str(path)) == DocumentFor(match="any", text="format = 1\n")


@pytest.mark.parametrize("word", ["none.toml", f"{MAC}=none.toml", "52:54=none.toml"])
def test_a_missing_document_is_said_before_anything_is_sent(host, thimble, tmp_path: Path, word: str) -> None:
    line = thimble("host", "serve-boot", "--switch", "rack", "--allow", "any", "--document", word)
    assert line.code == 5 and "cannot read" in line.err and "none.toml" in line.err
    assert host.asked == []


def test_a_dry_run_sends_no_image(host, thimble, tmp_path: Path) -> None:
    image = tmp_path / "thimble.efi"
    image.write_bytes(b"x")
    host.answers["netboot.serve"] = DryRun(possible=True, effects=(Effect(what="serves on rack"),))
    words = ("host", "serve-boot", "--switch", "rack", "--allow", "any", "--image", str(image), "--dry-run")
    line = thimble(*words)
    assert (line.code, line.out) == (0, "this would happen:\n  serves on rack\n")
    assert host.query("netboot.serve") == {"dry_run": "1"} and host.verbs == ["netboot.serve"]


def test_alone_it_shows_and_off_ends(host, thimble) -> None:
    host.answers |= {"netboot.get": ON, "netboot.stop": Nothing()}
    shown = thimble("host", "serve-boot").out
    for words in ("at 10.9.0.1", "from this host, of 10.9.0.0/24", MAC, "any", "1 GiB", "4 requests"):
        assert words in shown
    assert '"rev": 3' in thimble("host", "serve-boot", "--json").out
    host.answers["netboot.get"] = msgspec.structs.replace(ON, on=False, why="the card is gone")
    assert "not now: the card is gone" in thimble("host", "serve-boot").out
    host.answers["netboot.get"] = Netboot()
    assert thimble("host", "serve-boot").out == "network boot is off\n"
    assert thimble("host", "serve-boot", "--off").code == 0 and host.verbs[-1] == "netboot.stop"


@pytest.mark.parametrize(
    "words", [("--off", "--switch", "rack"), ("--allow", "any"), ("--dry-run",), ("--off", "--proxy")]
)
def test_what_does_not_go_together_is_said(host, thimble, words: tuple[str, ...]) -> None:
    assert thimble("host", "serve-boot", *words).code == 2
    assert host.asked == []


# ── those that came ──────────────────────────────────────────────────────────────────────────────


def test_the_table_fits_eighty_columns_and_reasons_are_below() -> None:
    many = [
        neighbour(1),
        neighbour(2, stage=Stage.FAILED, document=MAC),
        neighbour(3, stage=Stage.LOADED, reported=False, serial="", document="", seen=0.0),
        neighbour(4, serial="VMware-56 4d 9f 2a 6c 1e", document="serial:x"),
    ]
    shown = cli.listing(many, now=time.time(), width=80).splitlines()
    assert max(len(line) for line in shown[:5]) <= 80
    assert shown[0].startswith("N  NAME") and shown[0].endswith("LAST SEEN")
    assert "rack1  52:54:00:12:34:01" in shown[1] and "10.9.0.101  applied  1/2  any" in shown[1]
    assert shown[1].endswith("12 s ago") and shown[3].endswith("never") and "VMware…" in shown[4]
    assert shown[5] == "2: http://10.9.0.1/n/x/thimble.toml: line 3 is wrong"


def test_the_longest_there_may_be_fit_as_well() -> None:
    one = neighbour(12, ip="192.168.100.101", document=MAC, seen=time.time() - 3000)
    table = cli.listing([one], now=time.time(), width=80)
    assert max(map(len, table.splitlines())) <= 80 and "192.168.100.101" in table


@pytest.mark.parametrize(
    ("seconds", "words"), [(-3, "0 s ago"), (59.9, "59 s ago"), (61, "1 min ago"), (7300, "2 h ago")]
)
def test_last_seen_is_one_unit(seconds: float, words: str) -> None:
    assert cli.ago(seconds) == words


def test_neighbours_are_listed_and_forgotten(host, thimble) -> None:
    host.answers |= {"neighbour.list": found(neighbour(1)), "neighbour.delete": Nothing()}
    assert "rack1" in thimble("host", "neighbours").out
    answer = msgspec.json.decode(thimble("host", "neighbours", "--json").out, type=NeighbourList)
    assert answer.neighbours[0].mac == "52:54:00:12:34:01"
    assert thimble("host", "neighbours", "--forget", MAC).out == f"{MAC} forgotten\n"
    assert host.asked[-1][1].url.path.endswith(MAC.replace(":", "%3A")) or MAC in host.asked[-1][1].url.path
    host.answers["neighbour.list"] = found()
    assert thimble("host", "neighbours").out == "no neighbours yet\n"


def test_watching_shows_it_again_until_it_is_interrupted(
    host, thimble, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.answers["neighbour.list"] = found(neighbour(1))
    naps = iter((None, None))

    def nap(_: float) -> None:
        if next(naps, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr(cli.time, "sleep", nap)
    line = thimble("host", "neighbours", "--watch")
    assert line.code == 130 and line.out.count("rack1") == 3


# ── each ─────────────────────────────────────────────────────────────────────────────────────────


class Rack:
    """VM lists by host; `down` are not reached."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.tokens: list[tuple[str, str]] = []

    def __call__(self, request: httpx.Request) -> Any:
        if request.url.host in self.down:
            raise httpx.ConnectTimeout("no way there", request=request)
        self.tokens.append((request.url.host, request.headers.get("Authorization", "")))
        return {"rev": 1, "vms": []}


@pytest.fixture
def rack(host) -> Rack:
    made = Rack()
    host.answers |= {
        "neighbour.list": found(
            neighbour(1), neighbour(2, stage=Stage.FAILED), neighbour(3, stage=Stage.ASKED, reported=False)
        ),
        "vm.list": made,
        "session.create": Granted(token="granted", user="admin", role=Role.ADMIN, expires=9e9),
        "session.delete": Nothing(),
    }
    return made


EACH = ("host", "neighbours", "--each", "--", "vm", "list")


def test_each_signs_in_with_the_password_and_out_again(
    host, thimble, rack: Rack, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = location.read_text()
    monkeypatch.setenv("THIMBLE_PASSWORD", "correct horse")
    monkeypatch.setenv("THIMBLE_FINGERPRINT", "ab" * 32)  # of the host that serves, not of these
    line = thimble(*EACH)
    assert line.code == 0, line.err
    assert rack.tokens == [("10.9.0.101", "Bearer granted"), ("10.9.0.102", "Bearer granted")]
    assert host.body("session.create") == {"user": "admin", "password": "correct horse"}
    assert host.verbs.count("session.delete") == 2
    assert "── 1 rack1 https://10.9.0.101/ ──" in line.out and "── 2 rack2" in line.out
    assert "3: 52:54:00:12:34:03 is skipped" in line.err
    assert "correct horse" not in line.out + line.err and location.read_text() == before


def test_each_takes_the_token_given_or_the_one_kept_and_never_that_of_the_serving_host(
    host, thimble, rack: Rack, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Profile(url="https://10.9.0.101", fingerprint="01" * 32, token="kept")
    profiles = profile.read(location)
    merged = msgspec.structs.replace(profiles, profiles={**profiles.profiles, "one": kept})
    profile.write(location, merged)
    line = thimble(*EACH)
    assert rack.tokens == [("10.9.0.101", "Bearer kept")]  # no password for the other one
    assert line.code == 2 and "no password given" in line.err
    rack.tokens.clear()
    monkeypatch.setenv("THIMBLE_TOKEN", "given")
    assert thimble(*EACH).code == 0
    assert [token for _, token in rack.tokens] == ["Bearer given", "Bearer given"]


def test_each_goes_on_when_one_fails_and_the_worst_counts(
    host, thimble, rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THIMBLE_TOKEN", "given")
    rack.down = {"10.9.0.101"}
    line = thimble(*EACH)
    assert line.code == Problem(Code.UNAVAILABLE, "").exit_code
    assert "does not answer" in line.err and [where for where, _ in rack.tokens] == ["10.9.0.102"]


def test_each_with_json_keeps_headings_apart(
    host, thimble, rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THIMBLE_TOKEN", "given")
    line = thimble("host", "neighbours", "--each", "--json", "--", "vm", "list")
    assert line.out.count('"vms": []') == 2 and "──" not in line.out and line.err.count("── ") == 2


@pytest.mark.parametrize(
    "report",
    [
        {"url": "https://10.9.0.66/"},  # it speaks from 10.9.0.101
        {"url": "http://127.0.0.1/"},
        {"url": ""},
        {"certificate_sha256": "zz"},
    ],
)
def test_no_token_goes_where_a_neighbour_only_says_it_is(
    host, thimble, rack: Rack, monkeypatch: pytest.MonkeyPatch, report: dict[str, str]
) -> None:
    monkeypatch.setenv("THIMBLE_TOKEN", "given")
    one = neighbour(1)
    assert one.report is not None
    lied = msgspec.structs.replace(one, report=msgspec.structs.replace(one.report, **report))
    host.answers["neighbour.list"] = found(lied)
    assert thimble(*EACH).code in (2, 4)
    assert host.verbs == ["neighbour.list"]


def test_a_certificate_that_was_believed_is_not_replaced_by_a_reported_one(
    host, thimble, rack: Rack, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Profile(url="https://10.9.0.101", fingerprint="ee" * 32, token="kept")
    profiles = profile.read(location)
    profile.write(location, msgspec.structs.replace(profiles, profiles={**profiles.profiles, "one": kept}))
    host.answers["neighbour.list"] = found(neighbour(1))
    line = thimble(*EACH)
    assert line.code == 4 and "a different certificate" in line.err and rack.tokens == []


def test_another_host_cannot_be_named_behind_each(
    host, thimble, rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THIMBLE_TOKEN", "given")
    line = thimble(*EACH, "--host", "https://other")
    assert line.code == 2 and "already chosen" in line.err and rack.tokens == []


def test_with_none_ready_each_does_not_pretend(host, thimble) -> None:
    host.answers["neighbour.list"] = found(neighbour(1, stage=Stage.LOADED, reported=False))
    assert thimble(*EACH).code == 5


@pytest.mark.parametrize("words", [("--each",), ("vm", "list"), ("--watch", "--forget", MAC), ("--dry-run",)])
def test_neighbours_wants_words_that_go_together(host, thimble, words: tuple[str, ...]) -> None:
    assert thimble("host", "neighbours", *words).code == 2
    assert host.asked == []
