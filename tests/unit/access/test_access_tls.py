"""The host's certificate: made once, kept, replaced only when broken."""

from __future__ import annotations

import asyncio
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest

from thimble.access import tls, x509
from thimble.core.problem import Code, Problem


def ensure(state: Path, **more: Any) -> str:
    addresses = ("10.1.2.3/24", "fd00::1%eth0")
    _, fingerprint = asyncio.run(tls.ensure(state, name="box", addresses=addresses, **more))
    return fingerprint


@pytest.mark.parametrize("library", ["libcrypto.so.3", "libnone.so"], ids=["library", "program"])
def test_a_certificate_is_made_once_with_names_and_a_secret_key(tmp_path: Path, library: str) -> None:
    first = ensure(tmp_path, library=library)
    assert first == ensure(tmp_path) and len(first) == 64
    assert stat.S_IMODE((tmp_path / "tls" / "key.pem").stat().st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "tls").iterdir()) == ["certificate.pem", "key.pem"]
    facts = ssl._ssl._test_decode_cert(str(tmp_path / "tls" / "certificate.pem"))  # type: ignore[attr-defined]
    names = {value for _, value in facts["subjectAltName"]}
    assert {"localhost", "box", "127.0.0.1", "10.1.2.3", "FD00:0:0:0:0:0:0:1"} <= names


def test_nothing_is_sent_after_the_handshake_that_nobody_asked_for(tmp_path: Path) -> None:
    """A client may read and write in two threads; OpenSSL cannot take a ticket and a write at once."""
    context, _ = asyncio.run(tls.ensure(tmp_path, name="box", addresses=()))
    assert context.num_tickets == 0


@pytest.mark.parametrize("broken", ["key.pem", "certificate.pem"])
@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_broken_one_is_moved_aside_and_replaced(tmp_path: Path, broken: str, content: str) -> None:
    first = ensure(tmp_path)
    for _ in range(2):
        (tmp_path / "tls" / broken).write_text(content)
        assert ensure(tmp_path) != first
    kept = [path.name for path in (tmp_path / "tls").iterdir()]
    assert f"{broken}.broken" in kept and f"{broken}.broken2" in kept


def test_a_missing_key_makes_a_new_pair(tmp_path: Path) -> None:
    first = ensure(tmp_path)
    (tmp_path / "tls" / "key.pem").unlink()
    assert ensure(tmp_path) != first


def test_without_library_and_program_one_is_told_so_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        ensure(tmp_path, library="libnone.so", openssl="no-such-openssl")
    assert caught.value.code is Code.UNSUPPORTED
    assert not list((tmp_path / "tls").iterdir())


def test_no_two_certificates_have_a_serial_in_common(tmp_path: Path) -> None:
    serials = set()
    for number in range(3):
        ensure(tmp_path / str(number))
        path = tmp_path / str(number) / "tls" / "certificate.pem"
        serials.add(ssl._ssl._test_decode_cert(str(path))["serialNumber"])  # type: ignore[attr-defined]
    assert len(serials) == 3


def test_a_library_that_is_no_libcrypto_or_refuses_is_missing() -> None:
    for library, alternatives in (("libc.so.6", "DNS:a"), ("libcrypto.so.3", "nonsense")):
        with pytest.raises(x509.Missing):
            x509.self_signed("box", alternatives, serial=1, days=1, library=library)


@pytest.mark.parametrize("name", ["", "host\nbasicConstraints = CA:TRUE", "a,DNS:evil", "é", "x" * 300])
def test_a_strange_host_name_cannot_change_what_is_asked_for(tmp_path: Path, name: str) -> None:
    common, alternatives = tls.names(name, ())
    assert alternatives.count("DNS:") == 2 and common.isascii() and 0 < len(common) < 64
    asyncio.run(tls.ensure(tmp_path, name=name, addresses=()))
