"""The host's certificate: made at first start with the openssl program, kept in the state directory.

    <state>/tls/key.pem            ECDSA P-256, 0600
    <state>/tls/certificate.pem    self-signed, 10 years, host name and addresses of that day as names

Made anew only when missing or broken; broken files are moved aside, never deleted. Clients pin the
fingerprint, so a new certificate is an event people must notice.
"""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from pathlib import Path

from thimble.core.problem import Code, Problem
from thimble.sys import command, files

_REQUEST = """[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = {name}
[extensions]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = {names}
"""


async def ensure(
    state: Path,
    *,
    name: str,
    addresses: tuple[str, ...],
    durable: bool = True,
    openssl: str = "openssl",
    timeout: float = 60.0,
) -> tuple[ssl.SSLContext, str]:
    """(the context to serve with, the certificate's SHA-256 in hex). Raises `Problem`."""
    directory = state / "tls"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    if certificate.exists() and key.exists():
        with suppress(OSError, ValueError):  # ssl.SSLError is an OSError
            return context(key, certificate), fingerprint(certificate)
    for path in (key, certificate):
        if path.exists():
            path.rename(_free(path))
    await _make(directory, name, addresses, durable=durable, openssl=openssl, timeout=timeout)
    return context(key, certificate), fingerprint(certificate)


def context(key: Path, certificate: Path) -> ssl.SSLContext:
    """TLS 1.2 and later, HTTP/1.1. Raises ssl.SSLError when the two do not fit."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    made.load_cert_chain(certificate, key)
    return made


def fingerprint(certificate: Path) -> str:
    """SHA-256 of the certificate, in hex."""
    from hashlib import sha256

    return sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


def request(name: str, addresses: tuple[str, ...]) -> str:
    """The openssl configuration that asks for a certificate for these names. Pure."""
    plain = "".join(letter for letter in name if letter.isascii() and (letter.isalnum() or letter in "-._"))
    hosts = dict.fromkeys(["localhost", plain or "thimble"])
    bare = [address.partition("/")[0].partition("%")[0] for address in addresses]
    numbers = dict.fromkeys(["127.0.0.1", "::1", *bare])
    names = [*(f"DNS:{host}" for host in hosts), *(f"IP:{number}" for number in numbers)]
    return _REQUEST.format(name=(plain or "thimble")[:64], names=",".join(names))


async def _make(
    directory: Path, name: str, addresses: tuple[str, ...], *, durable: bool, openssl: str, timeout: float
) -> None:
    config = directory / "request.cnf"
    new_key, new_certificate = directory / "key.new", directory / "certificate.new"
    files.write_atomic(config, request(name, addresses).encode(), durable=False)
    try:
        os.close(os.open(new_key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        await command.run(
            [
                openssl, "req", "-x509", "-new", "-nodes", "-batch", "-sha256",
                "-config", str(config),
                "-newkey", "ec",
                "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-days", "3650",
                "-keyout", str(new_key),
                "-out", str(new_certificate),
            ],
            timeout=timeout,
        )  # fmt: skip
        key, certificate = new_key.read_bytes(), new_certificate.read_bytes()
        if not key or not certificate:
            raise Problem(Code.FAILED, "openssl made no certificate")
        files.write_atomic(directory / "key.pem", key, mode=0o600, durable=durable)
        files.write_atomic(directory / "certificate.pem", certificate, mode=0o644, durable=durable)
    except OSError as error:
        raise files.problem(error, f"cannot make a certificate in {directory}") from error
    finally:
        for path in (config, new_key, new_certificate):
            path.unlink(missing_ok=True)


def _free(path: Path) -> Path:
    """`key.pem.broken`, or the next free number."""
    number = 1
    while (aside := path.with_name(f"{path.name}.broken{'' if number == 1 else number}")).exists():
        number += 1
    return aside
