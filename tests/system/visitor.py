"""Somebody who has the server's console and its address: signs in, and starts the tiny guest on it."""

from __future__ import annotations

import time

from thimble.cli.demo import after
from thimble.client.http import Client
from thimble.client.trust import Trust
from thimble.contract.host import Login
from thimble.contract.vm import DirectBoot, Firmware, VmCreate
from thimble.core.problem import Code, Problem
from thimble.guest import tiny
from thimble.image.progress import on_stderr
from thimble.lab.server import Server

BOOT_S = 240.0
GUEST_S = 120.0


def visit(server: Server) -> Client:
    """Wait until the server is ready and sign in with what it shows."""
    server.wait_for(b"thimble: ready in ", BOOT_S)
    fingerprint = after(server, b"certificate SHA-256 ")
    password = after(server, b"login admin, password ")
    client = Client(f"https://127.0.0.1:{server.forward(443)}", trust=Trust(fingerprint=fingerprint))
    deadline = time.monotonic() + 60
    while not client.token:
        try:
            client.token = client.call("session.create", Login(user="admin", password=password)).token
        except Problem as problem:  # the certificate is there before the address
            if problem.code not in (Code.UNAVAILABLE, Code.TIMEOUT) or time.monotonic() > deadline:
                raise
            time.sleep(0.3)
    return client


def start_guest(client: Client) -> None:
    """Start a VM that needs no disk, and wait for its first word."""
    guest = tiny.ensure(on_stderr)
    for name, file in (("vmlinuz", guest.kernel), ("initrd", guest.initrd)):
        with file.open("rb") as content:
            client.upload("image.upload", content, file.stat().st_size, path={"image": name})
    wanted = VmCreate(
        name="tiny", memory_mib=192, firmware=Firmware.DIRECT, vga=False, tablet=False, start=True,
        direct=DirectBoot(kernel="vmlinuz", initrd="initrd", cmdline=guest.cmdline),
    )  # fmt: skip
    client.finish(client.call("vm.create", wanted), timeout=GUEST_S)
    seen, deadline = b"", time.monotonic() + GUEST_S
    with client.console("tiny") as line:
        while b"tiny guest: up" not in seen:
            left = deadline - time.monotonic()
            assert left > 0, f"the guest did not come up: {seen[-400:]!r}"
            piece = line.recv(timeout=left)
            seen += piece if isinstance(piece, bytes) else piece.encode()
    assert client.call("vm.get", path={"vm": "tiny"}).status.accel == "kvm"
