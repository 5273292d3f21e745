"""`./run`: image → virtual server → first VM, shown as one timeline; then it stays until Ctrl-C.

Nothing here is special to the demonstration: the image is the product's, the server is the lab's, and what is
done in it goes through the API like anybody else's work. The password is read where a person would read it:
on the console.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
import time
from pathlib import Path

from thimble.cli import progress
from thimble.cli.demo_server import after, say, sign_in, wait_for_interrupt
from thimble.client.http import Client
from thimble.contract.host import Host
from thimble.contract.network import Forward, SwitchChange
from thimble.contract.vm import DirectBoot, DiskSpec, Firmware, NicSpec, SeedSpec, VmCreate
from thimble.core.problem import Code, Problem
from thimble.guest import debian
from thimble.image import build
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.server import LabServer
from thimble.lab.spec import STATE_LABEL, LabDisk, LabNic

GUEST = "debian1"
SSH_PORT = 2222  # of the server, handed on to the guest's 22
GIB = 1 << 30


class Timeline:
    """Moments in seconds since power-on, printed as they come."""

    def __init__(self, server: LabServer) -> None:
        self._server = server
        self.moments: dict[str, float] = {}

    def mark(self, name: str, words: str, at: float | None = None) -> None:
        self.moments[name] = self._server.seconds_on() if at is None else at
        print(f"  {self.moments[name]:7.1f} s  {words}", file=sys.stderr, flush=True)

    def between(self, earlier: str, later: str) -> float:
        return round(self.moments[later] - self.moments[earlier], 2)


def show(*, once: bool, keep: bool, profile: str, out: Path) -> dict[str, object]:
    """Do all of it; the summary. `once` ends after the guest's SSH banner, `keep` leaves the server on."""
    began = time.monotonic()
    with progress.meter(quiet=False) as shown:
        built = build.build(build.BuildOptions(profile=profile, out=out), shown.at)
        guest = debian.ensure(shown.at)
    image_bytes = built.total_bytes
    say(f"image      {built.directory} ({profile}): {image_bytes / 1e6:.1f} MB, built")
    server = with_retries(lambda _: power_on(built.directory), say=say)
    try:
        timeline = Timeline(server)
        client, summary = first_vm(server, timeline, guest)
        summary = {
            "image_bytes": image_bytes,
            "accel": server.accel,
            **summary,
            "total_s": round(time.monotonic() - began, 1),
        }
        if not once:
            farewell(server, client)
            wait_for_interrupt()
    finally:
        if not keep:
            server.down(force=True)
    return summary


def power_on(directory: Path) -> LabServer:
    """The virtual server, with a state disk, waiting at `ready`."""
    spec = spec_of_image(
        directory,
        name="run",
        memory_mib=3072,
        disks=(LabDisk(size_bytes=8 * GIB, label=STATE_LABEL),),
        nics=(LabNic(forwards=(443, SSH_PORT)),),
    )
    say("server     powering on (2 CPUs, 3 GiB, 8 GiB disk, nested virtualization)")
    server = LabServer.up(spec)
    try:
        server.wait_for(b"thimble: ready in ", 240)
    except BaseException:
        server.down(force=True)
        raise
    return server


def first_vm(
    server: LabServer, timeline: Timeline, guest: debian.DebianGuest
) -> tuple[Client, dict[str, object]]:
    """From `ready` to the guest's SSH banner."""
    ready_at = server.seconds_on()
    kernel_s = float(server.wait_for(b" s", 10).split()[-2])
    timeline.mark("power_on", "powered on", 0.0)
    timeline.mark("kernel", "kernel started", max(ready_at - kernel_s, 0.0))
    timeline.mark("ready", f"ready, {kernel_s:.1f} s after its kernel started", ready_at)
    fingerprint = after(server, b"certificate SHA-256 ")
    password = after(server, b"login admin, password ")
    client = sign_in(server, fingerprint, password)
    host: Host = client.call("host.get")
    timeline.mark("signed_in", f"signed in; guests run under {host.accel.upper()}")
    for name, path in (
        ("debian.qcow2", guest.disk),
        ("debian.vmlinuz", guest.kernel),
        ("debian.initrd", guest.initrd),
    ):
        if path is not None:
            upload(client, name, path)
    timeline.mark("uploaded", "guest's disk, kernel and initrd uploaded")
    client.finish(client.call("vm.create", demo_vm(guest)))
    timeline.mark("created", f"VM {GUEST} created")
    client.call(
        "switch.change",
        SwitchChange(forwards=(Forward(port=SSH_PORT, vm=GUEST, to_port=22),)),
        path={"switch": "nat"},
    )
    client.call("vm.start", path={"vm": GUEST})
    timeline.mark("start", "start requested")
    first = first_line(client)
    timeline.mark("first_line", f"guest's first line: {first}")
    address = client.call("vm.get", path={"vm": GUEST}).nics[0].ip
    banner = ssh_banner(server.forward(SSH_PORT), timeout=180)
    timeline.mark("ssh", f"guest at {', '.join(address)} answers: {banner}")
    between = timeline.between
    return client, {
        "power_on_to_kernel_s": between("power_on", "kernel"),
        "power_on_to_ready_s": between("power_on", "ready"),
        "vm_create_s": between("uploaded", "created"),
        "vm_start_to_first_line_s": between("start", "first_line"),
        "vm_start_to_ssh_s": between("start", "ssh"),
    }


def demo_vm(guest: debian.DebianGuest) -> VmCreate:
    return VmCreate(
        name=GUEST,
        memory_mib=384,
        firmware=Firmware.DIRECT,
        direct=DirectBoot(
            kernel="debian.vmlinuz", initrd="debian.initrd" if guest.initrd else None, cmdline=guest.cmdline
        ),
        disks=(DiskSpec(image="debian.qcow2"),),
        nics=(NicSpec(switch="nat"),),
        vga=False,
        tablet=False,
        seed=SeedSpec(method="credentials", user="root"),  # type: ignore[arg-type]
    )


def upload(client: Client, name: str, path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file, progress.meter(quiet=False) as shown:
        client.upload(
            "image.upload", file, size, path={"image": f"local/{name}"},
            progress=lambda sent: progress.bytes_on(shown, f"upload {name}", sent, size),
        )  # fmt: skip


def first_line(client: Client, timeout: float = 120) -> str:
    """The first line the guest writes to its serial console."""
    deadline = time.monotonic() + timeout
    seen = b""
    while True:
        try:
            socket_ = client.console(GUEST)
            break
        except Problem as problem:  # not started yet
            if problem.code not in (Code.CONFLICT, Code.UNAVAILABLE) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    with socket_:
        while b"\n" not in seen.lstrip():
            piece = socket_.recv(timeout=max(deadline - time.monotonic(), 0.1))
            seen += piece if isinstance(piece, bytes) else piece.encode()
    line = seen.lstrip().splitlines()[0].decode(errors="replace")
    return "".join(character for character in line if character.isprintable())[:60]


def ssh_banner(port: int, timeout: float) -> str:
    """What the guest's SSH server says first, read through the server's forward."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as line:
                line.settimeout(5)
                banner = line.recv(255)
                if banner.startswith(b"SSH-"):
                    return banner.split(b"\r\n")[0].decode(errors="replace")
        except OSError:
            pass
        time.sleep(0.2)
    raise Problem(Code.TIMEOUT, f"the guest's SSH did not answer within {timeout:.0f} s")


def farewell(server: LabServer, client: Client) -> None:
    command = ".venv/bin/thimble --profile run"
    lines = (
        f"open       {client.url}/",
        f"try        {command} vm list",
        f"           {command} vm console {GUEST}",
        f"           {command} host show",
        f"           .venv/bin/thimble lab console {server.spec.name}      the server's own serial line",
        f"           ssh -p {server.forward(SSH_PORT)} root@127.0.0.1      the guest",
        "end        Ctrl-C powers the server off",
    )
    print("", *lines, sep="\n", file=sys.stderr, flush=True)


def main() -> int:
    words = argparse.ArgumentParser(prog="./run", description="Image, server, first VM; stays until Ctrl-C.")
    words.add_argument("--once", action="store_true", help="end when the VM is up, with a line of JSON")
    words.add_argument("--rack", type=int, metavar="N", help="N blank neighbours, booted over the network")
    words.add_argument("--keep", action="store_true", help="leave the server running at the end")
    words.add_argument("--profile", default="virtual", choices=("virtual", "server"), help="which image")
    words.add_argument("--out", type=Path, default=Path("out"), help="where the image is written")
    chosen = words.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        how = {"once": chosen.once, "keep": chosen.keep, "profile": chosen.profile, "out": chosen.out}
        if chosen.rack is not None:
            from thimble.cli import rack

            summary = rack.show(chosen.rack, **how)
        else:
            summary = show(**how)
    except Problem as problem:
        print(f"thimble: {problem.detail}", file=sys.stderr)
        for line in (*(reason.message for reason in problem.reasons), problem.hint):
            if line:
                print(f"         {line}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        return 130
    print(json.dumps(summary), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
