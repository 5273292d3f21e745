"""A firmware's Secure Boot variables as systemd-boot enrols them. Pure; somebody else signs.

Format: UEFI specification, "Variable Services" (EFI_VARIABLE_AUTHENTICATION_2) and "Secure Boot and Driver
Signing" (EFI_SIGNATURE_LIST). Signatures come from `openssl cms`; sbvarsign's are refused by firmware that
checks them, because it signs other bytes than it says.
"""

from __future__ import annotations

import ssl
import struct
import time
import uuid

from thimble.image.fault import fault

_GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
_SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
_X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
_PKCS7 = uuid.UUID("4aafd29d-68df-49ee-8aa9-347d375665a7")
_ATTRIBUTES = 0x27  # non-volatile, boot service, runtime, time-based authenticated
_WIN_CERTIFICATE = struct.Struct("<IHH16s")
_REVISION, _GUID_TYPE = 0x0200, 0x0EF1


def signature_list(certificate: str, owner: uuid.UUID) -> bytes:
    """One certificate (PEM) as the firmware keeps it."""
    der = ssl.PEM_cert_to_DER_cert(certificate.strip())
    entry = 16 + len(der)
    return _X509.bytes_le + struct.pack("<III", 28 + entry, 0, entry) + owner.bytes_le + der


def timestamp(seconds: float) -> bytes:
    """EFI_TIME in UTC; the firmware takes only later ones than it has."""
    at = time.gmtime(seconds)
    day = (at.tm_year, at.tm_mon, at.tm_mday, at.tm_hour, at.tm_min, at.tm_sec)
    return struct.pack("<HBBBBBxIhBx", *day, 0, 0, 0)


def to_sign(name: str, stamp: bytes, content: bytes) -> bytes:
    """The bytes the key above this variable has to sign."""
    vendor = _SECURITY if name in ("db", "dbx") else _GLOBAL
    return name.encode("utf-16-le") + vendor.bytes_le + struct.pack("<I", _ATTRIBUTES) + stamp + content


def authenticated(stamp: bytes, cms: bytes, content: bytes) -> bytes:
    """The `.auth` file. `cms` is the detached signature, DER; older firmware wants its inner part alone."""
    signed = _signed_data(cms)
    length = _WIN_CERTIFICATE.size + len(signed)
    head = _WIN_CERTIFICATE.pack(length, _REVISION, _GUID_TYPE, _PKCS7.bytes_le)
    return stamp + head + signed + content


def _signed_data(cms: bytes) -> bytes:
    """SignedData of ContentInfo ::= SEQUENCE { OID, [0] SignedData }."""
    outer, _ = _inside(cms, 0x30)
    _, rest = _inside(outer, 0x06)
    inner, _ = _inside(rest, 0xA0)
    return inner


def _inside(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the element that begins here, and what follows it."""
    if len(der) < 2 or der[0] != tag:
        raise fault("failed", "openssl gave no signature that can be used")
    size, start = der[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[2:start], "big")
    return der[start : start + size], der[start + size :]
