"""What a person types becomes one spelling of where the host is."""

from __future__ import annotations

import pytest

from thimble.client.address import base_url, endpoint
from thimble.core.problem import Code, Problem


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("10.0.0.7", "https://10.0.0.7"),
        ("https://10.0.0.7/", "https://10.0.0.7"),
        ("https://10.0.0.7:443", "https://10.0.0.7"),
        (" host.example:8443 ", "https://host.example:8443"),
        ("fe80::1", "https://[fe80::1]"),
        ("[fe80::1]:8443", "https://[fe80::1]:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_every_spelling_of_a_host_is_understood(typed: str, url: str) -> None:
    assert base_url(typed) == url


@pytest.mark.parametrize("typed", ["", "ftp://x", "https://x/path", "https://x:99999", "https://"])
def test_what_is_no_address_is_refused_with_an_example(typed: str) -> None:
    with pytest.raises(Problem) as caught:
        base_url(typed)
    assert caught.value.code is Code.INVALID
    assert "https://" in caught.value.hint


def test_plain_http_to_another_machine_is_refused() -> None:
    with pytest.raises(Problem, match="in the clear"):
        base_url("http://10.0.0.7")


def test_the_endpoint_has_the_default_port() -> None:
    assert endpoint("https://[fe80::1]") == ("fe80::1", 443)
    assert endpoint("https://h:8443") == ("h", 8443)
