"""A virtual server for tests of installing and updating: its disks outlive it, and it is signed in to.

Builds differ by a file in the RAM root and by words of the command line; they cost seconds, not minutes.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.thimble_server import extended
from visitor import Commands, signed_in, until

from thimble.client.http import Client
from thimble.client.trust import Trust
from thimble.contract.deploy import UPLOAD, Deploy, Reboot, UpdateRequest
from thimble.core.problem import Code, Problem
from thimble.image import cpio, manifest, media, packages, toolbox
from thimble.image.pack import Packer
from thimble.image.progress import on_stderr, silent
from thimble.image.signing import Signer, from_files
from thimble.lab.command import spec_of_image
from thimble.lab.server import LabServer
from thimble.lab.spec import LabDisk, LabFirmware, LabMedium

BOOT_S = 240.0
CERTIFICATE = re.compile(rb"certificate SHA-256 ([0-9a-f]{64})")
PASSWORD = re.compile(rb"login admin, password (\S+)")


class Builds:
    """Variants of a built image, signed with a key made here."""

    def __init__(self, image: Path, scratch: Path) -> None:
        self.image = image
        self.scratch = scratch
        self.box = toolbox.ensure(on_stderr)
        self.signer = _signer(self.box, scratch)

    @property
    def certificate(self) -> str:
        return self.signer.certificate.read_text()

    def made(self, note: str, *, version: str = "0.2.0", words: str = "", signed: bool = True) -> Path:
        """A thimble.efi of its own: another RAM root by a file in it, more words on its command line."""
        folder = self.scratch / note
        folder.mkdir()
        (folder / "vmlinuz").write_bytes((self.image / "vmlinuz").read_bytes())
        mark = cpio.file("note", note.encode(), 0o644)
        (folder / "initrd").write_bytes(extended((self.image / "initrd").read_bytes(), [mark]))
        known = manifest.read(self.image)
        wanted = media.BuiltImage(
            folder=folder,
            profile="virtual",
            version=version,
            kernel=str(known["kernel"]),
            words=f"{known['words']} {words}".strip(),
            build=media.build_id([folder / "vmlinuz", folder / "initrd"]),
        )
        packer = Packer(box=self.box, epoch=packages.read_lock().epoch)
        media.make(packer, wanted, silent, kinds=(), signer=self.signer if signed else None)
        return folder / media.EFI


def _signer(box: toolbox.Toolbox, scratch: Path) -> Signer:
    key, certificate = scratch / "key.pem", scratch / "certificate.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=tests",
             "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
    subprocess.run([str(box.wrappers / "openssl"), *words], check=True, capture_output=True)
    return from_files(key, certificate)


class Host:
    """One server at a time on disks that are files."""

    def __init__(self, image: Path, name: str) -> None:
        self.image = image
        self.name = name
        self.password = ""
        self.fingerprint = ""
        self.server: LabServer
        self.client = Client("https://127.0.0.1", trust=Trust(insecure=True))

    def power_on(
        self,
        medium: LabMedium,
        disks: tuple[LabDisk, ...],
        firmware: LabFirmware = LabFirmware.UEFI,
        append: str = "",
    ) -> None:
        """A new server on these disks; returns when it is ready and we are signed in."""
        if medium is LabMedium.DIRECT:
            firmware = LabFirmware.DIRECT
        self.server = LabServer.up(
            spec_of_image(
                self.image, name=self.name, medium=medium, firmware=firmware, disks=disks, append=append
            )
        )
        self.ready()
        self.sign_in()

    def power_off(self) -> None:
        """By cutting it: what is acknowledged is on the disks."""
        self.server.down(force=True)

    def ready(self, timeout: float = BOOT_S) -> None:
        self.server.wait_for(b"thimble: ready in ", timeout)

    def sign_in(self) -> None:
        self._read_console()
        url = f"https://127.0.0.1:{self.server.forward(443)}"
        self.client = Client(url, trust=Trust(fingerprint=self.fingerprint))
        self.client.token = signed_in(self.client, self.password)

    def typed(self, scratch: Path) -> Commands:
        """Somebody who types commands."""
        return Commands(self.client, self.fingerprint, scratch)

    def _read_console(self) -> None:
        """Certificate and password; shown at every start until the password is used once."""

        def shown() -> bool:
            said = self.server.serial.tail(1 << 20).rpartition(b"thimble: ready in ")[2]
            if b"thimble: https://" not in said:  # the last of what a start says
                return False
            for name, pattern in (("fingerprint", CERTIFICATE), ("password", PASSWORD)):
                if found := pattern.findall(said):
                    setattr(self, name, found[-1].decode())
            return bool(self.password and self.fingerprint)

        until("the console shows certificate and password", shown, 30)

    def deploy(self) -> Deploy:
        found: Deploy = self.client.call("deploy.get")
        return found

    def settled(self) -> Deploy:
        """As it is when the trial, or what is left of one, is over."""
        return until("settled", lambda: ((d := self.deploy()).slots and not _open(d) and d) or None, 150)

    def finish(self, verb: str, wanted: Any) -> Any:
        return self.client.finish(self.client.call(verb, wanted), timeout=400)

    def send(self, efi: Path) -> None:
        with efi.open("rb") as content:
            self.client.upload("deploy.upload", content, efi.stat().st_size, path={})

    def update(self, efi: Path, how: Reboot = Reboot.FIRMWARE) -> None:
        """Send it, have it written, and see the host go down for it."""
        self.send(efi)
        self.go("deploy.update", UpdateRequest(image=UPLOAD, reboot=how, guest_timeout_s=10))

    def go(self, verb: str, wanted: Any) -> None:
        """Ask for what ends in a restart."""
        started = self.client.call(verb, wanted)
        try:
            self.client.finish(started, timeout=300)
        except Problem as problem:
            if problem.code is not Code.UNAVAILABLE:
                raise  # a host that goes down while we wait has obeyed


def _open(found: Deploy) -> bool:
    if found.last is not None:
        return found.last.state == "pending"
    return found.trial
