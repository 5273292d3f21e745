"""The kernel command line is read as the kernel reads it, and wrong values are told, not obeyed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.boot.cmdline import CommandLine, split_words, valid_hostname


def test_words_are_split_at_blanks_outside_quotes() -> None:
    assert split_words('a=1  b="x y" "c=d e"\n') == ["a=1", "b=x y", "c=d e"]


def test_an_empty_quoted_word_is_a_word() -> None:
    assert split_words('a "" b') == ["a", "", "b"]


@given(st.lists(st.text("abc=.:", min_size=1), max_size=6))
def test_joined_words_come_back(words: list[str]) -> None:
    assert split_words(" ".join(words)) == words


def test_the_last_of_repeated_parameters_wins_and_every_ip_is_kept() -> None:
    settings = CommandLine("console=tty0 console=ttyS0 ip=dhcp ip=[2001:db8::1]::: quiet")
    assert settings.values["console"] == "ttyS0"
    assert settings.values["quiet"] == ""
    assert settings.ip == ["dhcp", "[2001:db8::1]:::"]
    assert settings.warnings == []


def test_defaults_look_for_a_state_partition_and_name_nothing() -> None:
    settings = CommandLine("")
    assert (settings.hostname, settings.nic, settings.ntp, settings.state) == ("", "", [], "auto")


def test_all_of_ours_are_read() -> None:
    settings = CommandLine(
        "thimble.hostname=Host-1.example thimble.nic=52:54:00:AA:BB:CC "
        "thimble.ntp=a,b thimble.state=ram thimble.state_wait=3"
    )
    assert settings.hostname == "host-1.example"
    assert settings.nic == "52:54:00:aa:bb:cc"
    assert settings.ntp == ["a", "b"]
    assert (settings.state, settings.state_wait) == ("ram", 3.0)


@pytest.mark.parametrize(
    "text", ["thimble.state=usb", "thimble.state_wait=soon", "thimble.state_wait=-1", "thimble.hostname=a_b"]
)
def test_a_wrong_value_is_a_warning_and_the_default_holds(text: str) -> None:
    settings = CommandLine(text)
    assert len(settings.warnings) == 1
    assert (settings.state, settings.state_wait, settings.hostname) == ("auto", 10.0, "")


@pytest.mark.parametrize("name", ["", "-a", "a-", "a..b", "a b", "ü", "a" * 64, "a/b"])
def test_what_is_no_host_name_is_refused(name: str) -> None:
    assert valid_hostname(name) == ""
