"""Only the certificate that was believed gets a byte of ours."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from thimble.client.http import Client
from thimble.client.trust import Trust, context, normal_fingerprint, presented
from thimble.core.problem import Code, Problem


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate like an agent's own: self-signed, named for this address."""
    where = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=thimble", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", str(where / "key"), "-out", str(where / "cert"),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    (where / "both").write_text((where / "key").read_text() + (where / "cert").read_text())
    return where / "both"


@pytest.fixture
def server(certificate: Path) -> Iterator[tuple[int, list[bytes]]]:
    """A TLS server that answers every request with `{}`; its port, and what it was sent."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with tls.wrap_socket(plain, server_side=True) as wire:
                    heard.append(wire.recv(65536))
                    wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            except OSError:
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1], heard
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(timeout=5)


def test_the_believed_certificate_is_talked_to(server: tuple[int, list[bytes]]) -> None:
    port, heard = server
    trust = Trust(fingerprint=presented("127.0.0.1", port))
    with Client(f"https://127.0.0.1:{port}", trust=trust, token="secret") as client:
        client.call("session.delete")
    assert any(b"Bearer secret" in request for request in heard)


def test_another_certificate_never_sees_the_token(server: tuple[int, list[bytes]]) -> None:
    port, heard = server
    with Client(f"https://127.0.0.1:{port}", trust=Trust(fingerprint="ab" * 32), token="secret") as client:
        with pytest.raises(Problem, match="another certificate") as caught:
            client.call("session.delete")
        with pytest.raises(Problem, match="another certificate"):
            client.console("web1")
    assert caught.value.code is Code.UNAUTHENTICATED
    assert not any(b"secret" in request for request in heard)


def test_an_authority_is_believed_for_the_address_it_names(
    server: tuple[int, list[bytes]], certificate: Path
) -> None:
    port, _ = server
    with Client(f"https://127.0.0.1:{port}", trust=Trust(ca=str(certificate))) as client:
        client.call("session.delete")
    with (
        Client(f"https://localhost:{port}", trust=Trust(ca=str(certificate))) as client,
        pytest.raises(Problem) as caught,
    ):
        client.call("session.delete")
    assert caught.value.code is Code.UNAVAILABLE


def test_without_a_decision_there_is_no_connection() -> None:
    with pytest.raises(Problem, match="no certificate is trusted"):
        context(Trust())


def test_a_host_that_does_not_listen_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Problem) as caught:
        presented("127.0.0.1", port, timeout=5)
    assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    "typed", ["AB:" * 31 + "AB", "SHA256:" + "ab" * 32, "sha256=" + "AB" * 32, " " + "ab" * 32]
)
def test_every_spelling_of_a_fingerprint_is_understood(typed: str) -> None:
    assert normal_fingerprint(typed) == "ab" * 32


def test_half_a_fingerprint_is_refused() -> None:
    with pytest.raises(Problem, match="not a SHA-256"):
        normal_fingerprint("ab" * 16)
