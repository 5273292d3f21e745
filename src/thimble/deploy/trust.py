"""Whose updates are accepted: certificates in the image, and records the host's admin made.

    /usr/share/thimble/trust/*.pem      come with the image
    <state>/trust/<name>.json           added with `key.create`, or by the host document

An image is trusted when sbverify(1) accepts its Authenticode signature with one of them. Dates of
certificates do not count. Without any certificate no image is trusted.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Nothing
from thimble.contract.deploy import Key, KeyCreate, KeyList
from thimble.core.decision import GO, Decision, blocked
from thimble.core.ids import name_reasons
from thimble.core.problem import Code, Problem, Reason
from thimble.dispatch import run
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
        self._folder = built_in
        self._built_in: dict[str, str] | None = None  # read when first asked for: an image never changes
        self._rev = rev
        self._turn = asyncio.Lock()

    def certificates(self) -> dict[str, str]:
        """Name → PEM of every key there is. Those of the image are in RAM and few: read at once."""
        if self._built_in is None:
            self._built_in = _pem_files(self._folder)
        return self._built_in | {record.id: record.value.certificate for record in self._records.all()}

    # ── verbs ────────────────────────────────────────────────────────────────────────────────────

    async def list(self, _call: Call[None]) -> KeyList:
        keys = self.certificates()
        return KeyList(rev=self._rev(), keys=tuple(self._view(name, keys[name]) for name in sorted(keys)))

    async def create(self, call: Call[KeyCreate]) -> Key | DryRun:
        name, pem = call.input.name, call.input.certificate

        def decide() -> Decision[bool]:
            reasons = name_reasons(name, "$.name")
            if name in self.certificates():
                message = f"there is a key {name} already"
                reasons.append(Reason(message=message, code=Code.EXISTS, path="$.name"))
            reasons += certificate_reasons(pem, "$.certificate")
            effect = f"accepts images signed with the key {name}"
            return Decision(
                plan=GO, effects=(effect,), blockers=tuple(reasons), refusal="this key cannot be added"
            )

        async def act(_: Decision[bool]) -> Key:
            await self._records.commit(name, KeyRecord(certificate=pem), expect=0)
            return self._view(name, pem)

        return await run.now(call, decide, act, turn=self._turn)

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        name = call.path["key"]

        def decide() -> Decision[bool]:
            if self._records.find(name) is None and name in self.certificates():
                message = f"the key {name} is part of the image"
                return blocked(Reason(message=message, code=Code.CONFLICT), hint="Build it without.")
            self._records.get(name)
            return Decision(plan=GO, effects=(f"accepts images signed with the key {name} no longer",))

        async def act(_: Decision[bool]) -> Nothing:
            await self._records.remove(name)
            return Nothing()

        return await run.now(call, decide, act, turn=self._turn)

    # ── for updates ──────────────────────────────────────────────────────────────────────────────

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
        output = ""
        for name, pem in known.items():
            result = await self._verify(image, pem)
            if result.code == 0:
                return name
            output += (result.stderr + result.stdout).decode(errors="replace")
        if "Hash doesn't match" in output:
            raise Problem(
                Code.FORBIDDEN, "the image was altered after it was signed", hint="Get it again, whole."
            )
        raise Problem(
            Code.FORBIDDEN,
            f"the image is signed with a key this host does not trust (it trusts {', '.join(known)})",
            hint=_ADD,
        )

    async def _verify(self, image: Path, pem: str) -> command.Result:
        path = await asyncio.to_thread(_written, self._scratch, pem)
        try:
            argv = ["sbverify", "--cert", str(path), str(image)]
            return await command.run(argv, timeout=120, check=False)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    def _view(self, name: str, pem: str) -> Key:
        der = ssl.PEM_cert_to_DER_cert(_block(pem))
        return Key(
            name=name,
            fingerprint=hashlib.sha256(der).hexdigest(),
            built_in=self._records.find(name) is None,
        )


def _pem_files(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.pem"))}


def _written(folder: Path, pem: str) -> Path:
    """A certificate in a file of its own: two requests may verify at once."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{os.urandom(4).hex()}.pem"
    path.write_text(pem)
    return path


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
