"""Whose updates are accepted: certificates in the image, and records the host's admin made.

    /usr/share/thimble/trust/*.pem      come with the image
    <state>/trust/<name>.json           added with `key.create`, or by the host document

An image is believed when sbverify(1) accepts its Authenticode signature with one of them. Dates of
certificates do not count. Without any certificate nothing is believed: silence is never consent.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect, Nothing
from thimble.contract.deploy import Key, KeyCreate, KeyList
from thimble.core.ids import name_reasons
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.state.store import Collection
from thimble.sys import command

BUILT_IN = Path("/usr/share/thimble/trust")
_ADD = "Add the certificate of who signs your images: thimble host key add NAME CERTIFICATE"


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    certificate: str


class KeyService:
    """`key.*`, and the judgement for `deploy`. `scratch`: where certificates are put for sbverify."""

    def __init__(
        self, state: Path, scratch: Path, *, durable: bool, rev: Callable[[], int], built_in: Path = BUILT_IN
    ) -> None:
        self._records: Collection[KeyRecord] = Collection(KeyRecord, noun="key", durable=durable)
        self._records.add_root("", state / "trust")
        self._scratch = scratch
        self._built_in = built_in
        self._rev = rev

    def certificates(self) -> dict[str, str]:
        """Name → PEM of every key there is."""
        found = {path.stem: path.read_text() for path in sorted(self._built_in.glob("*.pem"))}
        return {**found, **{record.id: record.value.certificate for record in self._records.all()}}

    async def list(self, _call: Call[None]) -> KeyList:
        return KeyList(rev=self._rev(), keys=tuple(self._view(name) for name in sorted(self.certificates())))

    async def create(self, call: Call[KeyCreate]) -> Key | DryRun:
        name, pem = call.input.name, call.input.certificate
        reasons = name_reasons(name, "$.name")
        if name in self.certificates():
            reasons.append(Reason(message=f"there is a key {name} already", code=Code.EXISTS, path="$.name"))
        reasons += certificate_reasons(pem, "$.certificate")
        if call.dry_run:
            effect = Effect(what=f"accepts images signed with the key {name}")
            return DryRun(possible=not reasons, effects=(effect,), blockers=tuple(reasons))
        refuse(reasons, "this key cannot be added")
        self._records.put(name, KeyRecord(certificate=pem), expect=0)
        return self._view(name)

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        name = call.path["key"]
        if self._records.find(name) is None and name in self.certificates():
            raise Problem(Code.CONFLICT, f"the key {name} is part of the image", hint="Build it without.")
        self._records.get(name)
        if call.dry_run:
            effect = Effect(what=f"accepts images signed with the key {name} no longer")
            return DryRun(possible=True, effects=(effect,))
        self._records.delete(name)
        return Nothing()

    async def signer(self, image: Path, *, signed: bool) -> str:
        """The name of the key `image` is signed with. Raises `Problem` FORBIDDEN saying why there is none."""
        known = self.certificates()
        if not known:
            raise Problem(Code.FORBIDDEN, "no key is trusted on this host, so no image can be", hint=_ADD)
        if not signed:
            raise Problem(
                Code.FORBIDDEN,
                "the image is not signed",
                hint="Sign it with `thimble image sign`, with a key this host trusts.",
            )
        self._scratch.mkdir(parents=True, exist_ok=True)
        said = ""
        for name, pem in known.items():
            path = self._scratch / "certificate.pem"
            path.write_text(pem)
            argv = ["sbverify", "--cert", str(path), str(image)]
            result = await command.run(argv, timeout=120, check=False)
            if result.code == 0:
                return name
            said += (result.stderr + result.stdout).decode(errors="replace")
        if "Hash doesn't match" in said:
            raise Problem(
                Code.FORBIDDEN, "the image was altered after it was signed", hint="Get it again, whole."
            )
        raise Problem(
            Code.FORBIDDEN,
            f"the image is signed with a key this host does not trust (it trusts {', '.join(known)})",
            hint=_ADD,
        )

    def _view(self, name: str) -> Key:
        pem = self.certificates()[name]
        der = ssl.PEM_cert_to_DER_cert(_block(pem))
        return Key(
            name=name,
            fingerprint=hashlib.sha256(der).hexdigest(),
            built_in=self._records.find(name) is None,
        )


def certificate_reasons(pem: str, path: str) -> list[Reason]:
    """Why this text is no certificate."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_block(pem))
    except (ssl.SSLError, ValueError) as error:
        return [
            Reason(
                message=f"this is not a certificate in PEM: {error}",
                path=path,
            )
        ]
    return []


def _block(pem: str) -> str:
    """The certificate, without words around it."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start, stop = pem.find(begin), pem.find(end)
    if start < 0 or stop < start:
        raise ValueError(f"there is no {begin}")
    return pem[start : stop + len(end)] + "\n"
