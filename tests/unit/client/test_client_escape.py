"""The console's escape key does the same however its bytes arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.client.escape import EscapeParser, Key, resize_command


def fed(*pieces: bytes) -> list[bytes | Key]:
    parser = EscapeParser()
    return [action for piece in pieces for action in parser.feed(piece)]


@pytest.mark.parametrize(
    ("typed", "actions"),
    [
        (b"ls\r", [b"ls\r"]),
        (b"\x1d.", [Key.LEAVE]),
        (b"\x1dq", [Key.LEAVE]),
        (b"\x1dr", [Key.RESIZE]),
        (b"\x1d?", [Key.HELP]),
        (b"\x1dx", [Key.HELP]),
        (b"a\x1d\x1db", [b"a\x1db"]),
        (b"a\x1drb", [b"a", Key.RESIZE, b"b"]),
        (b"a\x1d.never sent", [b"a", Key.LEAVE]),
        (b"\x03\x1b[A\x00\xff", [b"\x03\x1b[A\x00\xff"]),
        (b"", []),
    ],
)
def test_keys_mean_what_the_help_says(typed: bytes, actions: list[bytes | Key]) -> None:
    assert fed(typed) == actions


def test_the_escape_and_its_letter_may_come_apart() -> None:
    assert fed(b"a\x1d", b".") == [b"a", Key.LEAVE]


@given(st.lists(st.binary(max_size=6).map(lambda raw: raw.replace(b".", b"-").replace(b"q", b"-"))))
def test_cutting_the_input_changes_nothing(pieces: list[bytes]) -> None:
    def flat(actions: list[bytes | Key]) -> list[int | Key]:
        return [one for action in actions for one in (action if isinstance(action, bytes) else [action])]

    assert flat(fed(*pieces)) == flat(fed(b"".join(pieces)))


@given(st.binary().filter(lambda raw: 0x1D not in raw))
def test_everything_but_the_escape_reaches_the_guest(raw: bytes) -> None:
    assert b"".join(action for action in fed(raw) if isinstance(action, bytes)) == raw


def test_the_resize_is_what_a_person_would_type() -> None:
    assert resize_command(24, 80) == b"stty rows 24 cols 80\r"
