"""`./run --rack N`: one medium, N blank neighbours on a private wire, each with a VM of its own at the end.

The first is started from `thimble.img`; it serves its image and a document with `{{n}}` in it. The others
have neither disk nor stick: their firmware asks the wire, UEFI and BIOS in turns.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from thimble.cli import progress
from thimble.cli.demo_server import after, say, sign_in, wait_for_interrupt
from thimble.client.http import Client
from thimble.contract.netboot import DocumentFor, Neighbour, Netboot, ServeBoot
from thimble.contract.network import SwitchCreate, SwitchKind
from thimble.core.problem import Code, Problem
from thimble.core.units import show_size
from thimble.image import build
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.render import mac_of
from thimble.lab.server import LabServer
from thimble.lab.spec import LabFirmware, LabMedium, LabNic

#: More than anybody's machine carries; each takes 2 GiB.
MOST = 16
NEIGHBOUR_MIB = 2048
PATIENCE_S = 900.0
DOCUMENT = """\
format = 1

[host]
name = "node{{n}}"

[[switch]]
name = "lan"
kind = "isolated"

[[vm]]
name = "web{{n}}"
memory_mib = 64
firmware = "bios"
vga = false
tablet = false
nics = [{ switch = "lan" }]
"""
WORDS = {
    "asked": "{name} asks what to boot",
    "loaded": "{name} has kernel and RAM root ({sent})",
    "ready": "{name} is ready at {url}",
    "applied": "{name} has applied its document",
    "vm": "{name} runs the VM {vm}",
}


def show(count: int, *, once: bool, keep: bool, profile: str, out: Path) -> dict[str, object]:
    """Do all of it; the summary. Raises `Problem` INVALID, TIMEOUT and what the lab raises."""
    if not 1 <= count <= MOST:
        raise Problem(Code.INVALID, f"a rack of {count}: 1 to {MOST} neighbours")
    with progress.meter(quiet=False) as shown:
        built = build.build(build.BuildOptions(profile=profile, out=out), shown.at)
    return with_retries(lambda _: _rack(count, built.directory, once=once, keep=keep), say=say)


def _rack(count: int, directory: Path, *, once: bool, keep: bool) -> dict[str, object]:
    wire = f"rack {os.getpid()}"
    servers: list[LabServer] = []
    try:
        spec = spec_of_image(
            directory, name="rack", medium=LabMedium.IMG, firmware=LabFirmware.UEFI, memory_mib=3072,
            nics=(LabNic(forwards=(443,)), LabNic(wire=wire)),
        )  # fmt: skip
        say(f"server     powering on the one with the stick, and {count} blank after it")
        servers.append(stick := LabServer.up(spec))
        stick.wait_for(b"thimble: ready in ", 240)
        line(stick, "the stick is ready")
        client = sign_in(
            stick, after(stick, b"certificate SHA-256 "), after(stick, b"login admin, password ")
        )
        served = serve(client, mac_of("rack", 1))
        line(stick, f"it serves {show_size(served.image_bytes)} at {served.address}")
        begun = {}
        for number in range(count):
            firmware = LabFirmware.BIOS if number % 2 else LabFirmware.UEFI
            name = f"rack-{number + 1}"
            blank = spec_of_image(
                directory, name=name, medium=LabMedium.NONE, firmware=firmware, memory_mib=NEIGHBOUR_MIB,
                nics=(LabNic(wire=wire, pxe=True),),
            )  # fmt: skip
            servers.append(LabServer.up(blank))
            begun[mac_of(name, 0)] = (servers[-1], firmware)
        summary = watch(client, begun)
        if not once:
            command = ".venv/bin/thimble --profile run"
            print(f"\ntry        {command} host neighbours", file=sys.stderr)
            print("end        Ctrl-C powers them off", file=sys.stderr, flush=True)
            wait_for_interrupt()
        return summary
    finally:
        for server in servers if not keep else ():
            server.down(force=True)


def serve(client: Client, uplink: str) -> Netboot:
    """A switch on the private wire, and everybody there is booted."""
    client.call("switch.create", SwitchCreate(name="rack", kind=SwitchKind.BRIDGED, uplink=uplink))
    wanted = ServeBoot(switch="rack", allow=("any",), documents=(DocumentFor(match="any", text=DOCUMENT),))
    found: Netboot = client.call("netboot.serve", wanted)
    return found


def watch(client: Client, begun: dict[str, tuple[LabServer, LabFirmware]]) -> dict[str, object]:
    """Say each moment of each neighbour as it comes, until all have their VM."""
    moments: dict[str, dict[str, float]] = {mac: {} for mac in begun}
    deadline = time.monotonic() + PATIENCE_S
    while any("vm" not in seen for seen in moments.values()):
        for server, _ in begun.values():
            server.check()
        if time.monotonic() > deadline:
            raise Problem(Code.TIMEOUT, f"not all neighbours were there after {PATIENCE_S:.0f} s")
        for one in client.call("neighbour.list").neighbours:
            if one.mac in begun:
                for moment in reached(one):
                    if moment not in moments[one.mac]:
                        server, firmware = begun[one.mac]
                        moments[one.mac][moment] = server.seconds_on()
                        line(
                            server,
                            words(moment, one) + (f" ({firmware.upper()})" if moment == "asked" else ""),
                        )
        time.sleep(0.5)
    found = client.call("netboot.get")
    return {
        "neighbours": len(begun),
        "bytes_sent": found.bytes_sent,
        "power_on_to_vm_s": [round(seen["vm"], 1) for seen in moments.values()],
    }


def reached(one: Neighbour) -> list[str]:
    """The moments that are behind it, in order."""
    if one.report is not None and one.report.problem:
        raise Problem(Code.FAILED, f"{one.report.name}: {one.report.problem}")
    found = [name for name in ("asked", "loaded", "ready", "applied") if getattr(one, name)]
    if one.report is not None and any(vm.state == "running" for vm in one.report.vms):
        found.append("vm")
    return found


def words(moment: str, one: Neighbour) -> str:
    report = one.report
    return WORDS[moment].format(
        name=f"node{one.number}",
        sent=show_size(one.bytes_sent),
        url=report.url if report else "",
        vm=", ".join(vm.name for vm in report.vms) if report else "",
    )


def line(server: LabServer, text: str) -> None:
    print(f"  {server.seconds_on():7.1f} s  {server.spec.name:8} {text}", file=sys.stderr, flush=True)
