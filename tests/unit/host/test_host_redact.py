"""Secrets do not leave in a bundle: by name, by look, and because they are known."""

from __future__ import annotations

import pytest

from thimble.host.redact import GONE, Mask

KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\nabc\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"a {KEY} b", "MHcCAQEE"),
        ("cut off -----BEGIN PRIVATE KEY-----\nMHcCAQEE", "MHcCAQEE"),
        ("x scrypt$15$8$1$00ff$aa11 y", "00ff"),
        ("root:$6$rounds=9$salt$hash:1", "hash"),
        ("root:$y$j9T$salt$hash:1", "salt"),
        ("token " + "0a" * 32, "0a0a"),
        ("Authorization: Bearer abcdef.ghij", "abcdef"),
        ("from https://me:pw123@host/x", "pw123"),
        ("console=ttyS0 root_password=hunter22 quiet", "hunter22"),
        ("api_key: 'very secret words'", "very secret"),
    ],
)
def test_what_looks_secret_goes(text: str, secret: str) -> None:
    assert secret not in Mask().text(text)
    assert GONE in Mask().text(text)


def test_what_is_no_secret_stays() -> None:
    text = "3c:ec:ef:00:00:07 ready in 3.1 s, /dev/sda WD-WCC4N0 https://10.0.0.1/ $5 each"
    assert Mask().text(text) == text


def test_fields_that_are_called_so_go_whatever_they_hold() -> None:
    tree = {
        "seed": {"password_hash": "x", "user": "root", "user_data": "#cloud"},
        "tokens": ["a"],
        "none": None,
    }
    assert Mask().tree(tree) == {
        "seed": {"password_hash": GONE, "user": "root", "user_data": GONE}, "tokens": GONE, "none": None,
    }  # fmt: skip
    assert Mask().tree({"password": ""}) == {"password": ""}


def test_what_is_known_goes_wherever_it_stands() -> None:
    mask = Mask(["correct horse battery", "first line\nsecond line", "ab"])
    assert mask.text("he said: correct horse battery!") == f"he said: {GONE}!"
    assert mask.tree(["x second line", {"note": "first line"}]) == [f"x {GONE}", {"note": GONE}]
    assert mask.text("about cab") == "about cab"
