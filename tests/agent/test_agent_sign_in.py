"""Signing in to a real agent with the real command, and what the profile keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent_place import PASSWORD, Agent, Cli


@pytest.fixture
def visitor(agent: Agent, tmp_path: Path) -> Cli:
    """The command without anything in its environment."""
    made = Cli(agent)
    for name in ("THIMBLE_HOST", "THIMBLE_TOKEN", "THIMBLE_FINGERPRINT"):
        del made.environment[name]
    made.environment["XDG_CONFIG_HOME"] = str(tmp_path)
    return made


def test_the_first_visit_without_a_terminal_shows_the_fingerprint_and_sends_nothing(
    visitor: Cli, agent: Agent
) -> None:
    told = visitor("login", agent.url, "--password-file", str(agent.password_file))
    assert told.returncode == 4
    assert f"--fingerprint {agent.fingerprint}" in told.stderr


def test_sign_in_and_out(visitor: Cli, agent: Agent, tmp_path: Path) -> None:
    words = ("--password-file", str(agent.password_file), "--fingerprint", agent.fingerprint)
    assert "as admin (admin)" in visitor.ok("login", agent.url, *words)
    kept = tmp_path / "thimble" / "profiles.toml"
    assert PASSWORD not in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert visitor.json("host", "show")["certificate_sha256"] == agent.fingerprint
    visitor.ok("logout")
    told = visitor("host", "show")
    assert told.returncode == 4
    assert "thimble login" in told.stderr


def test_another_certificate_is_refused(visitor: Cli, agent: Agent) -> None:
    told = visitor(
        "login", agent.url, "--password-file", str(agent.password_file), "--fingerprint", "ab" * 32
    )
    assert told.returncode == 4
    assert "another certificate" in told.stderr
