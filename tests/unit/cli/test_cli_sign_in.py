"""Signing in, the first visit to a host, and which host is meant."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import pytest

from thimble.client import profile
from thimble.contract.common import Nothing
from thimble.contract.host import Role
from thimble.contract.host import Session as Granted
from thimble.core.problem import Code, Problem

FINGERPRINT = "ab" * 32


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("THIMBLE_PASSWORD", "correct horse")
    return "correct horse"


@pytest.fixture(autouse=True)
def granting(host) -> None:
    host.answers["session.create"] = Granted(token="new", user="admin", role=Role.ADMIN, expires=9e9)
    host.answers["session.delete"] = Nothing()


def test_an_unknown_certificate_is_shown_and_believed_when_a_person_says_so(
    host, thimble, location: Path, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(click, "confirm", lambda *_, **__: True)
    line = thimble("login", "https://10.0.0.9", interactive=True)
    assert line.code == 0, line.err
    assert FINGERPRINT in line.err
    kept = profile.read(location)
    assert kept.current == "10.0.0.9"
    assert kept.profiles["10.0.0.9"].fingerprint == FINGERPRINT
    assert kept.profiles["10.0.0.9"].token == "new"
    assert "correct horse" not in location.read_text()
    assert host.body("session.create") == {"user": "admin", "password": "correct horse"}


def test_a_person_who_says_no_sends_nothing(
    host, thimble, location: Path, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(click, "confirm", lambda *_, **__: False)
    line = thimble("login", "10.0.0.9", interactive=True)
    assert line.code == 9
    assert host.asked == []
    assert "10.0.0.9" not in profile.read(location).profiles


def test_without_a_terminal_the_fingerprint_must_be_given(host, thimble, password: str) -> None:
    line = thimble("login", "10.0.0.9")
    assert line.code == 4
    assert f"--fingerprint {FINGERPRINT}" in line.err
    assert host.asked == []


def test_a_given_fingerprint_is_kept(thimble, location: Path, password: str) -> None:
    assert thimble("login", "10.0.0.9:8443", "--fingerprint", "AB:" * 31 + "AB", "--name", "lab").code == 0
    kept = profile.read(location).profiles["lab"]
    assert (kept.url, kept.fingerprint) == ("https://10.0.0.9:8443", FINGERPRINT)


def test_insecure_is_said_loudly_each_time(host, thimble, password: str) -> None:
    line = thimble("login", "10.0.0.9", "--insecure")
    assert line.code == 0
    assert "WARNING" in line.err
    host.answers["vm.list"] = {"rev": 1, "vms": []}
    assert "WARNING" in thimble("vm", "list").err


def test_a_password_file_is_read(host, thimble, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from file\n")
    thimble("login", "https://host", "--user", "ann", "--password-file", str(file))
    assert host.body("session.create") == {"user": "ann", "password": "from file"}


def test_without_any_password_it_is_a_problem_and_not_a_prompt_into_nowhere(thimble) -> None:
    line = thimble("login", "https://host")
    assert line.code == 2
    assert "THIMBLE_PASSWORD" in line.err


def test_a_wrong_password_keeps_no_token(host, thimble, location: Path, password: str) -> None:
    host.answers["session.create"] = Problem(Code.UNAUTHENTICATED, "user or password is wrong")
    assert thimble("login", "10.0.0.9", "--fingerprint", FINGERPRINT).code == 4
    assert "10.0.0.9" not in profile.read(location).profiles


def test_logout_revokes_and_forgets_the_token_but_not_the_host(host, thimble, location: Path) -> None:
    assert thimble("logout").code == 0
    assert host.verbs == ["session.delete"]
    kept = profile.read(location).profiles["host"]
    assert (kept.token, kept.fingerprint) == ("", FINGERPRINT)
    assert thimble("logout").code == 6


def test_logout_with_an_expired_token_forgets_it_too(host, thimble, location: Path) -> None:
    host.answers["session.delete"] = Problem(Code.UNAUTHENTICATED, "expired")
    assert thimble("logout").code == 0
    assert profile.read(location).profiles["host"].token == ""


def test_without_any_host_the_way_in_is_told(thimble, location: Path) -> None:
    location.unlink()
    line = thimble("vm", "list")
    assert line.code == 5
    assert "thimble login" in line.err


def test_an_unknown_profile_names_the_known_ones(thimble) -> None:
    line = thimble("vm", "list", "--profile", "nope")
    assert line.code == 5
    assert "known: host" in line.err


def test_the_typed_host_beats_the_environment(host, thimble, monkeypatch: pytest.MonkeyPatch) -> None:
    host.answers["vm.list"] = {"rev": 1, "vms": []}
    monkeypatch.setenv("THIMBLE_PROFILE", "nope")
    assert thimble("vm", "list", "--host", "https://host").code == 0
    monkeypatch.delenv("THIMBLE_PROFILE")
    monkeypatch.setenv("THIMBLE_HOST", "https://elsewhere")
    assert thimble("--profile", "host", "vm", "list").code == 0
    assert {request.url.host for _, request in host.asked} == {"host"}


def test_a_token_of_the_environment_needs_no_profile(
    host, thimble, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location.unlink()
    host.answers["vm.list"] = {"rev": 1, "vms": []}
    monkeypatch.setenv("THIMBLE_HOST", "https://ci")
    monkeypatch.setenv("THIMBLE_TOKEN", "robot")
    monkeypatch.setenv("THIMBLE_FINGERPRINT", FINGERPRINT)
    assert thimble("vm", "list").code == 0
    assert host.asked[-1][1].headers["authorization"] == "Bearer robot"
    assert not location.exists()


def test_who_is_not_signed_in_is_told_how_and_nothing_is_asked(host, thimble, location: Path) -> None:
    kept = profile.read(location)
    for token, expires, says in (("", 0.0, "not signed in"), ("old", 1.0, "has expired")):
        changed = msgspec.structs.replace(kept.profiles["host"], token=token, expires=expires)
        profile.write(location, kept.with_profile("host", changed))
        line = thimble("vm", "list")
        assert line.code == 4
        assert says in line.err
        assert "thimble login https://host" in line.err
    assert host.asked == []
