"""The profile file survives writing and reading, and only its owner can read it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.client.profile import Profile, Profiles, location, read, render, write
from thimble.core.problem import Code, Problem

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "profiles.toml"
    kept = Profiles().with_profile(
        "lab", Profile(url="https://10.0.0.7", fingerprint="ab" * 32, token="t", expires=9.5)
    )
    write(path, kept)
    assert read(path) == kept
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@given(name=words, url=words, token=words, insecure=st.booleans())
def test_any_text_survives_the_file(name: str, url: str, token: str, insecure: bool) -> None:
    profile = Profile(url=url, token=token, insecure=insecure)
    back = tomllib.loads(render(Profiles(current=name, profiles={name: profile})))
    assert back["current"] == name
    assert back["profiles"][name]["url"] == url
    assert back["profiles"][name].get("token", "") == token


def test_no_file_is_no_profiles(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == Profiles()


def test_a_broken_file_is_a_problem_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "profiles.toml"
    path.write_text("current = 7")
    with pytest.raises(Problem, match="profiles.toml") as caught:
        read(path)
    assert caught.value.code is Code.MALFORMED


def test_the_current_profile_wins_among_those_of_one_host() -> None:
    one = Profile(url="https://h")
    kept = Profiles().with_profile("a", one).with_profile("b", one)
    assert kept.named("https://h") == "b"
    assert kept.named("https://other") == ""


def test_the_file_is_where_xdg_says() -> None:
    assert location({"XDG_CONFIG_HOME": "/x"}) == Path("/x/thimble/profiles.toml")
    assert location({"HOME": "/home/me"}) == Path("/home/me/.config/thimble/profiles.toml")
