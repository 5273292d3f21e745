"""A virtual server under rehearsal, and the way in: address, certificate, a token that outlives sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from thimble.client.http import Client
from thimble.client.trust import Trust
from thimble.contract.host import Host, Login, Role, TokenCreate
from thimble.core.problem import Code, Problem
from thimble.lab.server import LabServer
from thimble.lab.spec import LabFirmware, ServerSpec

T = TypeVar("T")
BOOT_S = 300.0
_LATER = (Code.UNAVAILABLE, Code.TIMEOUT, Code.CONFLICT)


class Site:
    """One server. `sign_in` once, then `client` as often as wanted, whatever happens between."""

    def __init__(self, spec: ServerSpec) -> None:
        self.server = LabServer.up(spec)
        self.fingerprint = ""
        self.token = ""

    def restart(self, spec: ServerSpec) -> None:
        """Power on as another server with the same disks, and wait until it is ready."""
        self._off()
        self.server.spec = spec
        self.server.power_on()
        self.ready()

    def renew(self, spec: ServerSpec) -> None:
        """Throw the server away, disks and all, and power on a new one."""
        self.server.down(force=True)
        self.server = LabServer.up(spec)
        self.ready()
        self.sign_in()

    def _off(self) -> None:
        if self.server.running:
            self.server.cut_power()

    def restart_from_disk(self, firmware: LabFirmware, *, wait: bool = True) -> None:
        """Power on from its own first disk."""
        self._off()
        if firmware is LabFirmware.UEFI:
            self.server.blank_firmware()
        self.server.spec = msgspec.structs.replace(self.server.spec, firmware=firmware, efi="")
        self.server.power_on()
        if wait:
            self.ready()

    def ready(self, timeout: float = BOOT_S) -> None:
        """Wait until the console says so."""
        self.server.wait_for(b"thimble: ready in ", timeout)

    def sign_in(self) -> None:
        """With the password of the first boot, read off the console, as a person would.

        A host that comes with the certificate it had has found its state, and knows the token.
        """
        known, self.fingerprint = self.fingerprint, self._said(b"certificate SHA-256 ")
        if self.fingerprint == known:
            return
        password = self._said(b"login admin, password ")
        self.token = ""
        login = Login(user="admin", password=password)
        session = self.ask(lambda client: client.call("session.create", login))
        self.token = session.token
        made = TokenCreate(name="rehearsal", role=Role.ADMIN)
        self.token = self.ask(lambda client: client.call("token.create", made)).token

    def client(self, *, timeout: float = 30.0) -> Client:
        url = f"https://127.0.0.1:{self.server.forward(443)}"
        return Client(url, trust=Trust(fingerprint=self.fingerprint), token=self.token, timeout=timeout)

    def ask(self, question: Callable[[Client], T], *, timeout: float = 90.0) -> T:
        """What `question` answers; while the host is not there (yet), it is asked again.

        Raises `OuterCrash` when it is the server's own QEMU that broke. Ready does not wait for
        an address, and a connection made before there is one waits for ever.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                with self.client(timeout=10.0) as client:
                    return question(client)
            except Problem as problem:
                self.server.check()  # whose fault is it?
                if problem.code not in _LATER or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def order(self, order: Callable[[Client], T]) -> T:
        """Ask once, of a host that answers: what is begun twice is refused."""
        self.host()
        with self.client(timeout=60.0) as client:
            return order(client)

    def host(self) -> Host:
        answer: Host = self.ask(lambda client: client.call("host.get"))
        return answer

    def _said(self, label: bytes) -> str:
        self.server.wait_for(label, 20)
        return self.server.wait_for(b"\n", 5).split()[-1].decode()
