"""The host's certificate: made at first start, kept in the state directory.

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

from thimble.sys import clock, command, files

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
subjectAltName = {alternatives}
"""
DAYS = 3650


async def ensure(
    state: Path,
    *,
    name: str,
    addresses: tuple[str, ...],
    durable: bool = True,
    library: str = "libcrypto.so.3",
    openssl: str = "openssl",
) -> tuple[ssl.SSLContext, str]:
    """(the context to serve with, the certificate's SHA-256 in hex). Raises `Problem`.

    Made by `library`; where there is none, by the program `openssl`.
    """
    directory = state / "tls"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    if certificate.exists() and key.exists():
        with suppress(OSError, ValueError):  # ssl.SSLError is an OSError
            return context(key, certificate), fingerprint(certificate)
    for path in (key, certificate):
        if path.exists():
            path.rename(_free(path))
    from thimble.access.x509 import Missing, self_signed  # with ctypes, only when it is needed

    common, alternatives = names(name, addresses)
    try:
        pair = self_signed(
            common,
            alternatives,
            serial=int.from_bytes(clock.entropy(8), "big") >> 1 or 1,
            days=DAYS,
            library=library,
        )
    except Missing:
        pair = await _by_program(directory, common, alternatives, openssl)
    files.write_atomic(key, pair[0], mode=0o600, durable=durable)
    files.write_atomic(certificate, pair[1], mode=0o644, durable=durable)
    return context(key, certificate), fingerprint(certificate)


def context(key: Path, certificate: Path) -> ssl.SSLContext:
    """TLS 1.2 and later, HTTP/1.1. Raises ssl.SSLError when the two do not fit."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # No client of ours resumes a session; and a ticket that comes while a console's other thread writes its
    # first bytes makes OpenSSL lose these now and then: the client waits until we hang up.
    made.num_tickets = 0
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    made.load_cert_chain(certificate, key)
    return made


def fingerprint(certificate: Path) -> str:
    """SHA-256 of the certificate, in hex."""
    from hashlib import sha256

    return sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


def names(name: str, addresses: tuple[str, ...]) -> tuple[str, str]:
    """(common name, alternative names as openssl writes them) of a host; strange letters left out. Pure."""
    plain = "".join(letter for letter in name if letter.isascii() and (letter.isalnum() or letter in "-._"))
    plain = plain[:63] or "thimble"
    bare = [address.partition("/")[0].partition("%")[0] for address in addresses]
    found = [f"DNS:{host}" for host in dict.fromkeys(["localhost", plain])]
    found += [f"IP:{number}" for number in dict.fromkeys(["127.0.0.1", "::1", *bare])]
    return plain, ",".join(found)


async def _by_program(directory: Path, common: str, alternatives: str, openssl: str) -> tuple[bytes, bytes]:
    """(key, certificate). Raises `Problem`."""
    config, key, certificate = directory / "request.cnf", directory / "key.new", directory / "certificate.new"
    text = _REQUEST.format(name=common, alternatives=alternatives)
    files.write_atomic(config, text.encode(), durable=False)
    try:
        os.close(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        await command.run(
            [
                openssl, "req", "-x509", "-new", "-nodes", "-batch", "-sha256",
                "-config", str(config),
                "-newkey", "ec",
                "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-days", str(DAYS),
                "-keyout", str(key),
                "-out", str(certificate),
            ],
            timeout=60.0,
        )  # fmt: skip
        return key.read_bytes(), certificate.read_bytes()
    except OSError as error:
        raise files.problem(error, f"cannot make a certificate in {directory}") from error
    finally:
        for path in (config, key, certificate):
            path.unlink(missing_ok=True)


def _free(path: Path) -> Path:
    """`key.pem.broken`, or the next free number."""
    number = 1
    while (aside := path.with_name(f"{path.name}.broken{'' if number == 1 else number}")).exists():
        number += 1
    return aside
