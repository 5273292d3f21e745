"""Signing for Secure Boot, with the user's own key.

A key folder, as `thimble image key` makes it:

    PK KEK db  .key .crt .auth    platform key, key-exchange key, and the one programs are signed with

The `.auth` files are the firmware's variables, each signed by the key above it, PK by itself. Only `db.key`
is needed to sign an image; the others are for changing the firmware's mind later. Private keys are never
read here, only handed to sbsign by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thimble.image.fault import fault
from thimble.image.pack import Packer

VARIABLES = ("PK", "KEK", "db")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A key, its certificate, and the variables that make a firmware accept it (none: it does already)."""

    key: Path
    certificate: Path
    variables: Mapping[str, bytes]

    @property
    def fingerprint(self) -> str:
        """Changes whenever a signed medium would."""
        parts = [self.certificate.read_bytes(), *(self.variables[name] for name in sorted(self.variables))]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def sign(self, packer: Packer, program: Path) -> None:
        """Put the signature into an EFI program."""
        signed = program.with_suffix(".signed")
        packer.run(
            "sbsign",
            *("--key", str(self.key)),
            *("--cert", str(self.certificate)),
            *("--output", str(signed)),
            str(program),
            dated=True,
        )
        signed.rename(program)

    def signed(self, packer: Packer, program: bytes, scratch: Path) -> bytes:
        """The same for a program in memory."""
        path = scratch / "program.efi"
        path.write_bytes(program)
        self.sign(packer, path)
        return path.read_bytes()


def from_folder(folder: Path) -> Signer:
    """The signer of a key folder. Raises NOT_FOUND."""
    found = from_files(folder / "db.key", folder / "db.crt")
    paths = {name: folder / f"{name}.auth" for name in VARIABLES}
    have = {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
    if have and len(have) < len(VARIABLES):
        lacks = ", ".join(f"{name}.auth" for name in VARIABLES if name not in have)
        raise fault(
            "not-found", f"{folder} lacks {lacks}", hint="Make a new folder with `thimble image key`."
        )
    return Signer(key=found.key, certificate=found.certificate, variables=have)


def from_files(key: Path, certificate: Path) -> Signer:
    """A signer whose certificate the firmware has already, or gets by hand. Raises NOT_FOUND, INVALID."""
    if not key.is_file():
        raise fault("not-found", f"there is no {key}", hint="`thimble image key DIR` makes keys.")
    check_certificate(certificate)
    return Signer(key=key, certificate=certificate, variables={})


def name_of(certificate: Path) -> str:
    """What the image calls a certificate it trusts."""
    return hashlib.sha256(certificate.read_bytes()).hexdigest()[:16]


def check_certificate(path: Path) -> None:
    """Raises NOT_FOUND, INVALID."""
    if not path.is_file():
        raise fault("not-found", f"there is no {path}", hint="`thimble image key DIR` makes keys.")
    if b"-----BEGIN CERTIFICATE-----" not in path.read_bytes():
        raise fault("invalid", f"{path} is not a PEM certificate")
