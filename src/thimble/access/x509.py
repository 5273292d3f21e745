"""A self-signed certificate, made by the libcrypto that Python's `ssl` has loaded anyway, through ctypes.

Half the cost of running the openssl program, and the image need not carry that. Only functions of OpenSSL 3's
stable API (X509_new(3) and its kin, X509V3_EXT_conf(3), PEM_write_bio(3)). `Missing` says that there is no
such library here; the caller then falls back to the program.
"""

from __future__ import annotations

import ctypes
from typing import Any

DAY = 86_400
_ASCII = 0x1001  # MBSTRING_ASC
_INFO = 3  # BIO_CTRL_INFO
_P = ctypes.c_void_p
_S = ctypes.c_char_p
_I = ctypes.c_int
_L = ctypes.c_long

#: name → (result, arguments) of every function used
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "EVP_PKEY_Q_keygen": (_P, (_P, _P, _S, _S)),
    "EVP_PKEY_free": (None, (_P,)),
    "EVP_sha256": (_P, ()),
    "X509_new": (_P, ()),
    "X509_free": (None, (_P,)),
    "X509_set_version": (_I, (_P, _L)),
    "X509_get_serialNumber": (_P, (_P,)),
    "ASN1_INTEGER_set_uint64": (_I, (_P, ctypes.c_uint64)),
    "X509_getm_notBefore": (_P, (_P,)),
    "X509_getm_notAfter": (_P, (_P,)),
    "X509_gmtime_adj": (_P, (_P, _L)),
    "X509_set_pubkey": (_I, (_P, _P)),
    "X509_get_subject_name": (_P, (_P,)),
    "X509_set_issuer_name": (_I, (_P, _P)),
    "X509_NAME_add_entry_by_txt": (_I, (_P, _S, _I, _S, _I, _I, _I)),
    "X509V3_EXT_conf": (_P, (_P, _P, _S, _S)),
    "X509_EXTENSION_free": (None, (_P,)),
    "X509_add_ext": (_I, (_P, _P, _I)),
    "X509_sign": (_I, (_P, _P, _P)),
    "BIO_s_mem": (_P, ()),
    "BIO_new": (_P, (_P,)),
    "BIO_free": (_I, (_P,)),
    "BIO_ctrl": (_L, (_P, _I, _L, _P)),
    "PEM_write_bio_X509": (_I, (_P, _P)),
    "PEM_write_bio_PrivateKey": (_I, (_P, _P, _P, _P, _I, _P, _P)),
}


class Missing(Exception):
    """No libcrypto of OpenSSL 3, or it refused."""


class _Library:
    """libcrypto with its signatures; a call that fails raises `Missing`."""

    def __init__(self, name: str) -> None:
        try:
            library = ctypes.CDLL(name)
            for function, (result, arguments) in _SIGNATURES.items():
                found = getattr(library, function)
                found.restype, found.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise Missing(str(error)) from error
        self._library = library

    def __call__(self, function: str, *arguments: Any) -> Any:
        result = getattr(self._library, function)(*arguments)
        if _SIGNATURES[function][0] is not None and not result:
            raise Missing(f"{function} failed")
        return result


def self_signed(
    name: str, alternatives: str, *, serial: int, days: int, library: str = "libcrypto.so.3"
) -> tuple[bytes, bytes]:
    """(key, certificate) in PEM: ECDSA P-256 for a TLS server. `alternatives`: `DNS:box,IP:10.0.0.1`.

    `serial` has 64 bits. Raises `Missing`.
    """
    call = _Library(library)
    key = call("EVP_PKEY_Q_keygen", None, None, b"EC", b"P-256")
    try:
        certificate = call("X509_new")
        try:
            _fill(call, certificate, key, name.encode(), serial, days)
            for kind, value in (
                (b"basicConstraints", b"critical,CA:FALSE"),
                (b"keyUsage", b"critical,digitalSignature"),
                (b"extendedKeyUsage", b"serverAuth"),
                (b"subjectAltName", alternatives.encode()),
            ):
                _extend(call, certificate, kind, value)
            call("X509_sign", certificate, key, call("EVP_sha256"))
            return (
                _pem(call, "PEM_write_bio_PrivateKey", key, None, None, 0, None, None),
                _pem(call, "PEM_write_bio_X509", certificate),
            )
        finally:
            call("X509_free", certificate)
    finally:
        call("EVP_PKEY_free", key)


def _fill(call: _Library, certificate: int, key: int, name: bytes, serial: int, days: int) -> None:
    """All but the extensions. Valid from yesterday on, for clocks that are a little wrong."""
    call("X509_set_version", certificate, 2)
    call("ASN1_INTEGER_set_uint64", call("X509_get_serialNumber", certificate), serial)
    call("X509_gmtime_adj", call("X509_getm_notBefore", certificate), -DAY)
    call("X509_gmtime_adj", call("X509_getm_notAfter", certificate), days * DAY)
    call("X509_set_pubkey", certificate, key)
    subject = call("X509_get_subject_name", certificate)
    call("X509_NAME_add_entry_by_txt", subject, b"CN", _ASCII, name, -1, -1, 0)
    call("X509_set_issuer_name", certificate, subject)


def _extend(call: _Library, certificate: int, kind: bytes, value: bytes) -> None:
    extension = call("X509V3_EXT_conf", None, None, kind, value)
    try:
        call("X509_add_ext", certificate, extension, -1)
    finally:
        call("X509_EXTENSION_free", extension)


def _pem(call: _Library, write: str, *arguments: Any) -> bytes:
    memory = call("BIO_new", call("BIO_s_mem"))
    try:
        call(write, memory, *arguments)
        where = ctypes.c_void_p()
        count = call("BIO_ctrl", memory, _INFO, 0, ctypes.byref(where))
        assert where.value is not None
        return ctypes.string_at(where.value, count)
    finally:
        call("BIO_free", memory)
