"""Whose certificate is believed. An agent makes its own at first boot, so its fingerprint is what counts,
as with SSH: seen once, believed by a person, kept in the profile, demanded ever after.

    fingerprint   the server's certificate has exactly this SHA-256         (the usual way)
    ca            it is signed by one of the authorities in this file and names the host
    insecure      anything goes; said loudly by whoever offers it

Invariant: a context made here with a fingerprint never lets a byte of ours out to another certificate.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from typing import Any

import msgspec

from thimble.client import wire
from thimble.core.problem import Code, Problem

HEX = frozenset("0123456789abcdef")


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What is believed. All empty: nobody yet."""

    fingerprint: str = ""
    ca: str = ""
    insecure: bool = False

    @property
    def decided(self) -> bool:
        """Whether there is anything to check a certificate against (or the will not to)."""
        return bool(self.fingerprint or self.ca or self.insecure)


def normal_fingerprint(text: str) -> str:
    """64 small hex digits of `SHA256:AB:CD…` in any of its spellings. Raises `Problem` INVALID."""
    digits = text.strip().lower().removeprefix("sha256").translate({ord(mark): None for mark in ": =-"})
    if len(digits) != 64 or not set(digits) <= HEX:
        raise Problem(
            Code.INVALID,
            f"{text!r} is not a SHA-256 fingerprint",
            hint="It has 64 hexadecimal digits; the host shows it on its console and in `thimble host show`.",
        )
    return digits


def fingerprint_of(certificate: bytes) -> str:
    """Of a certificate in DER."""
    return hashlib.sha256(certificate).hexdigest()


class OtherCertificate(ssl.SSLCertVerificationError):
    """The server showed another certificate than the one that is trusted."""

    def __init__(self, shown: str) -> None:
        super().__init__(f"it shows the certificate {shown}")
        self.problem = Problem(
            Code.UNAUTHENTICATED,
            "the host shows another certificate than the one you trusted",
            hint=f"It was made anew, or somebody is in between. If its console shows {shown}, "
            "sign in again with `thimble login URL --fingerprint` and that.",
        )


class _PinnedObject(ssl.SSLObject):
    """What asyncio shakes hands with."""

    def do_handshake(self) -> None:
        super().do_handshake()
        if isinstance(self.context, Pinned):
            self.context.check(self.getpeercert(binary_form=True))


class Pinned(ssl.SSLContext):
    """Checks the certificate's fingerprint as soon as the handshake is over, before anything is sent."""

    fingerprint = ""
    sslobject_class = _PinnedObject

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        """As in `ssl`. Raises `Problem` UNAUTHENTICATED when the server is another one."""
        wrapped = super().wrap_socket(*args, **options)
        try:
            self.check(wrapped.getpeercert(binary_form=True))
        except OtherCertificate as error:
            wrapped.close()
            raise error.problem from None
        return wrapped

    def check(self, certificate: bytes | None) -> None:
        """Raises `OtherCertificate`."""
        seen = fingerprint_of(certificate or b"")
        if seen != self.fingerprint:
            raise OtherCertificate(seen)


def context(trust: Trust) -> ssl.SSLContext:
    """The TLS settings that check `trust`. Raises `Problem` when nothing is decided or `ca` is no use."""
    if trust.fingerprint:
        pinned = Pinned(ssl.PROTOCOL_TLS_CLIENT)
        pinned.fingerprint = trust.fingerprint
        return _unchecked(pinned)
    if trust.ca:
        try:
            return ssl.create_default_context(cafile=trust.ca)
        except (OSError, ssl.SSLError) as error:
            raise Problem(Code.INVALID, f"cannot read authorities from {trust.ca}: {error}") from error
    if trust.insecure:
        return _unchecked(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    raise Problem(Code.UNAUTHENTICATED, "no certificate is trusted yet")


def presented(host: str, port: int, *, timeout: float = 10.0) -> str:
    """The fingerprint of what the server at `host` shows now. Raises `Problem` UNAVAILABLE."""
    try:
        with (
            socket.create_connection((host, port), timeout) as plain,
            _unchecked(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)).wrap_socket(
                plain, server_hostname=host
            ) as tls,
        ):
            return fingerprint_of(tls.getpeercert(binary_form=True) or b"")
    except OSError as error:
        raise wire.unreachable(f"{host}:{port}", error) from error


def _unchecked(settings: ssl.SSLContext) -> ssl.SSLContext:
    settings.check_hostname = False
    settings.verify_mode = ssl.CERT_NONE
    settings.minimum_version = ssl.TLSVersion.TLSv1_2
    return settings
