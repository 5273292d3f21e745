"""`thimble plan|apply|export|document`: what a person sees."""

from __future__ import annotations

import io
import os
from pathlib import Path

import msgspec
import pytest

from thimble.access.passwords import matches
from thimble.contract.common import Task, TaskState
from thimble.contract.document_api import DocumentExport, DocumentPlan, DocumentState, PlannedEffect
from thimble.contract.management import Management, ManagementSettings, PendingNet
from thimble.contract.verbs import Started
from thimble.core.problem import Code, Problem, Reason

PLAN = DocumentPlan(
    sha256="ab" * 32,
    effects=(PlannedEffect(what="starts VM web1", subject="vm web1", verbs=("vm.start",)),),
    warnings=("it is slow",),
    drift=("VM old is not in the document",),
)
DONE = Task(
    id="task-1",
    verb="document.apply",
    subject="host",
    state=TaskState.DONE,
    result={"done": "starts VM web1"},
)


@pytest.fixture
def document(tmp_path: Path) -> str:
    path = tmp_path / "host.toml"
    path.write_text('format = 1\n[host]\n\tname = "é" \n')
    return str(path)


def test_a_plan_names_effects_warnings_and_drift(host, thimble, document: str) -> None:
    host.answers["document.plan"] = PLAN
    line = thimble("plan", document)
    assert (line.code, line.out) == (
        0,
        "this would happen:\n  starts VM web1\nwarning: it is slow\n"
        "left alone:\n  VM old is not in the document\n",
    )
    sent = {"text": Path(document).read_text(), "source": "host.toml", "confirm_within": 0}
    assert host.body("document.plan") == sent
    assert msgspec.json.decode(thimble("plan", document, "--json").out, type=DocumentPlan) == PLAN


def test_mistakes_point_into_the_text(host, thimble, document: str) -> None:
    reason = Reason(message="no name", path="$.host.name", line=3, column=9)
    host.answers["document.plan"] = Problem(Code.INVALID, "the document has a mistake", reasons=(reason,))
    line = thimble("plan", document)
    assert line.code == 2
    assert '  host.toml:3:9: no name\n      3 |  name = "é" \n                  ^\n' in line.err


def test_a_blocked_plan_fails_and_so_does_applying_it(host, thimble, document: str) -> None:
    reason = Reason(message="no disk", code=Code.NOT_FOUND, path="$.datastore[0].device", line=2, column=1)
    host.answers["document.plan"] = msgspec.structs.replace(PLAN, blockers=(reason,))
    for words in (("plan", document), ("apply", document, "--yes")):
        line = thimble(*words)
        assert line.code == 5 and "not possible:\n  host.toml:2:1: no disk" in line.out.replace(
            "    host", "  host"
        )
    assert "document.apply" not in host.verbs


def test_apply_does_it_and_says_what_was_done(host, thimble, document: str) -> None:
    host.answers |= {"document.plan": PLAN, "document.apply": Started(task=DONE, subject="host")}
    line = thimble("apply", document)
    assert (line.code, line.out) == (0, "starts VM web1\n")
    assert thimble("apply", document, "--dry-run").out.startswith("this would happen:\n")
    assert host.verbs.count("document.apply") == 1


def test_a_change_of_the_hosts_own_network_is_confirmed_at_its_new_address(
    host, thimble, tmp_path: Path
) -> None:
    path = tmp_path / "host.toml"
    path.write_text('format = 1\n[management]\naddress = "10.0.0.6/24"\n')
    effect = PlannedEffect(what="sets it", subject="management", verbs=("management.change",))
    settings = ManagementSettings(address="10.0.0.6/24")
    tried = PendingNet(until=0, left_s=50, previous=ManagementSettings(), in_force=True)
    host.answers |= {
        "document.plan": msgspec.structs.replace(PLAN, effects=(effect,)),
        "document.apply": Started(task=DONE, subject="host"),
        "management.get": Management(rev=0, managed=True, settings=settings, pending=tried),
        "management.confirm": Management(rev=1, managed=True, settings=settings),
    }
    line = thimble("apply", str(path), "--yes")
    assert line.code == 0, line.err
    assert host.body("document.apply")["confirm_within"] == 60
    (confirmed,) = [request for name, request in host.asked if name == "management.confirm"]
    assert str(confirmed.url).startswith("https://10.0.0.6/")
    assert thimble("apply", str(path), "--yes", "--keep").code == 0
    assert host.body("document.apply")["confirm_within"] == 0
    assert host.verbs.count("management.confirm") == 1


def test_a_document_comes_from_standard_input(host, thimble, monkeypatch: pytest.MonkeyPatch) -> None:
    host.answers["document.plan"] = PLAN
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"format = 1\n")))
    assert thimble("plan", "-").code == 0
    assert host.body("document.plan")["text"] == "format = 1\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff", "is not UTF-8"), (b"#" * (1 << 21), "larger than"), (None, "cannot read")],
)
def test_what_is_no_document_never_leaves(
    host, thimble, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    line = thimble("plan", str(path))
    assert line.code != 0 and words in line.err and host.verbs == []


def test_an_export_is_written_for_its_owner_alone(host, thimble, tmp_path: Path) -> None:
    host.answers["document.export"] = DocumentExport(text="format = 1\n")
    assert thimble("export").out == "format = 1\n"
    path = tmp_path / "out.toml"
    old = os.umask(0)
    try:
        assert thimble("export", "-o", str(path)).code == 0
    finally:
        os.umask(old)
    assert path.read_text() == "format = 1\n" and path.stat().st_mode & 0o777 == 0o600


def test_show_tells_how_the_host_has_moved_away(host, thimble) -> None:
    host.answers["document.get"] = DocumentState()
    assert thimble("document", "show").out == "no document has been applied to this host\n"
    host.answers["document.get"] = DocumentState(
        sha256="ab", source="stick", applied=1.0, complete=False, changes=("starts VM web1",)
    )
    told = thimble("document", "show").out
    assert "incompletely" in told and "changed since  starts VM web1" in told


def test_the_schema_needs_no_host(host, thimble) -> None:
    assert '"title": "Thimble host document' in thimble("document", "schema").out and host.verbs == []


def test_a_hash_fits_the_document(host, thimble, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("correct horse\n")
    line = thimble("user", "hash", "--password-file", str(path))
    assert line.code == 0 and matches("correct horse", line.out.strip())
    path.write_text("short\n")
    assert thimble("user", "hash", "--password-file", str(path)).code == 2
