"""The verbs `up down list console log`, as functions, and an argparse command line for them."""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import termios
import tty
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem
from thimble.image.progress import Report, on_stderr
from thimble.lab import home
from thimble.lab.server import LabServer
from thimble.lab.spec import Bus, LabDisk, LabFirmware, LabMedium, LabNic, ServerSpec, parse_disk, parse_nic

FILES = {
    LabMedium.DIRECT: ("vmlinuz", "initrd"),
    LabMedium.EFI: ("thimble.efi",),
    LabMedium.IMG: ("thimble.img",),
    LabMedium.ISO: ("thimble.iso",),
    LabMedium.NONE: (),
}
ESCAPE = 0x1D  # Ctrl-]
APPEND = "quiet loglevel=3 rootfstype=ramfs console=tty0 console=ttyS0,115200"


def spec_of_image(
    image: Path,
    *,
    name: str = "lab",
    cpus: int = 2,
    memory_mib: int = 2048,
    firmware: LabFirmware | None = None,
    medium: LabMedium | None = None,
    bus: Bus | None = None,
    secure_boot: bool = False,
    disks: tuple[LabDisk, ...] = (),
    nics: tuple[LabNic, ...] = (LabNic(forwards=(443,)),),
    append: str = "",
) -> ServerSpec:
    """A server that boots a built image (the directory `thimble image build` writes) from one of its media.

    Medium and firmware follow from each other where only one is given. `append` reaches the kernel with
    direct boot only; on a medium the command line is the image's own.
    """
    usual = {LabFirmware.UEFI: LabMedium.EFI, LabFirmware.BIOS: LabMedium.IMG}
    medium = medium or (usual.get(firmware, LabMedium.DIRECT) if firmware else LabMedium.DIRECT)
    firmware = firmware or (LabFirmware.DIRECT if medium is LabMedium.DIRECT else LabFirmware.UEFI)
    if (medium is LabMedium.DIRECT) != (firmware is LabFirmware.DIRECT) or (
        medium is LabMedium.EFI and firmware is not LabFirmware.UEFI
    ):
        raise Problem(Code.INVALID, f"medium {medium} cannot boot with firmware {firmware}")
    where = image.absolute()
    for needed in FILES[medium]:
        if not (where / needed).is_file():
            raise Problem(
                Code.NOT_FOUND,
                f"there is no {needed} in {image}",
                hint="build one first: thimble image build",
            )
    return ServerSpec(
        name=name,
        cpus=cpus,
        memory_mib=memory_mib,
        firmware=firmware,
        secure_boot=secure_boot,
        kernel=str(where / "vmlinuz"),
        initrd=str(where / "initrd"),
        append=f"{command_line(image)} {append}".strip(),
        efi=str(where / "thimble.efi") if medium is LabMedium.EFI else "",
        disks=_medium_disks(where, medium, bus) + disks,
        nics=nics,
    )


def _medium_disks(image: Path, medium: LabMedium, bus: Bus | None) -> tuple[LabDisk, ...]:
    if medium is LabMedium.IMG:
        return (LabDisk(file=str(image / "thimble.img"), keep=True, bus=bus or Bus.VIRTIO, order=1),)
    if medium is LabMedium.ISO:
        file = str(image / "thimble.iso")
        return (LabDisk(file=file, cd=True, read_only=True, bus=bus or Bus.AHCI, order=1),)
    return ()


def command_line(image: Path) -> str:
    """The kernel command line the image was built with, as its manifest says."""
    try:
        manifest = json.loads((image / "manifest.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return APPEND
    return str(manifest.get("command_line") or APPEND) if isinstance(manifest, dict) else APPEND


def up(spec: ServerSpec, report: Report = on_stderr) -> dict[str, object]:
    """Power a server on; what there is to know about it."""
    server = LabServer.up(spec, report)
    forwards = {port: server.forward(port) for nic in spec.nics if not nic.wire for port in nic.forwards}
    return {
        "name": spec.name,
        "accel": server.accel,
        "home": str(server.home),
        "forwards": {str(port): f"127.0.0.1:{ours}" for port, ours in forwards.items()},
    }


def down(name: str, *, force: bool = False, timeout: float = 200, keep: bool = False) -> None:
    """Power off and remove."""
    LabServer.attach(name).down(force=force, timeout=timeout, keep=keep)


def console(name: str) -> None:
    """The server's serial line on this terminal, raw, until Ctrl-]."""
    where = home.of(name)
    home.read_spec(where)
    wire = home.connect(where / "serial.sock", timeout=None)
    sys.stderr.write(f"console of {name}; Ctrl-] leaves it\r\n")
    before = termios.tcgetattr(0) if os.isatty(0) else None
    try:
        if before is not None:
            tty.setraw(0)
        _shuttle(wire.fileno())
    finally:
        if before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
        wire.close()


def _shuttle(wire: int) -> None:
    sources = [0, wire]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if wire in ready:
            heard = os.read(wire, 65536)
            if not heard:
                return
            os.write(1, heard)
        if 0 in ready:
            typed = os.read(0, 4096)
            at = typed.find(ESCAPE)
            if at >= 0:
                os.write(wire, typed[:at])
                return
            if not typed:
                sources.remove(0)
            os.write(wire, typed)


def main(argv: list[str]) -> int:
    """The command line; problems become text and an exit code."""
    try:
        return _run(_parser().parse_args(argv))
    except Problem as problem:
        print(f"error: {problem.detail}", file=sys.stderr)
        for reason in problem.reasons:
            print(f"  {reason.path + ': ' if reason.path else ''}{reason.message}", file=sys.stderr)
        if problem.hint:
            print(f"hint: {problem.hint}", file=sys.stderr)
        return problem.exit_code


def _run(asked: argparse.Namespace) -> int:
    match asked.verb:
        case "up":
            said = up(
                spec_of_image(
                    asked.image or Path("out") / asked.profile,
                    name=asked.name,
                    cpus=asked.cpus,
                    memory_mib=asked.memory,
                    firmware=LabFirmware(asked.firmware) if asked.firmware else None,
                    medium=LabMedium(asked.medium) if asked.medium else None,
                    bus=Bus(asked.bus) if asked.bus else None,
                    secure_boot=asked.secure_boot,
                    disks=tuple(parse_disk(text) for text in asked.disk),
                    nics=tuple(parse_nic(text) for text in asked.nic or ["user:443"]),
                    append=asked.append,
                )
            )
            print(json.dumps(said, indent=None if asked.json else 2))
        case "down":
            names = [entry.name for entry in home.entries()] if asked.all else [asked.name]
            if names == [None]:
                raise Problem(Code.INVALID, "give a server's name, or --all")
            for name in names:
                down(name, force=asked.force)
        case "list":
            _print_list(as_json=asked.json)
        case "console":
            console(asked.name)
        case "log":
            home.read_spec(home.of(asked.name))
            sys.stdout.buffer.write((home.of(asked.name) / "serial.log").read_bytes())
    return 0


def _print_list(*, as_json: bool) -> None:
    found = home.entries()
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    for entry in found:
        state = f"on (pid {entry.pid}, {entry.accel})" if entry.running else "off"
        print(f"{entry.name:20} {state:24} {entry.cpus} CPUs {entry.memory_mib} MiB {entry.firmware}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="thimble lab", description="virtual servers that boot Thimble")
    verbs = parser.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("up", help="power a new server on with an image")
    start.add_argument("--profile", default="server")
    start.add_argument("--image", type=Path, help="directory with vmlinuz and initrd, or thimble.efi")
    start.add_argument("--name", default="lab")
    start.add_argument("--cpus", type=int, default=2)
    start.add_argument("--memory", type=int, default=2048, metavar="MIB")
    start.add_argument("--disk", action="append", default=[], help="10G, state:8G, nvme:10G or a file")
    start.add_argument("--firmware", choices=[*LabFirmware])
    start.add_argument("--medium", choices=[*LabMedium])
    start.add_argument("--bus", choices=[*Bus], help="the bus of the medium")
    start.add_argument("--secure-boot", action="store_true", help="UEFI with Secure Boot, in setup mode")
    start.add_argument(
        "--nic", action="append", help="user:PORT,PORT or wire:NAME; to start from it: ,pxe or ,http"
    )
    start.add_argument("--append", default="", help="append to the kernel command line")
    start.add_argument("--json", action="store_true")
    stop = verbs.add_parser("down", help="power off and remove")
    stop.add_argument("name", nargs="?")
    stop.add_argument("--all", action="store_true")
    stop.add_argument("--force", action="store_true", help="cut the power")
    show = verbs.add_parser("list", help="all servers")
    show.add_argument("--json", action="store_true")
    for verb, text in (
        ("console", "its serial line; Ctrl-] leaves"),
        ("log", "its whole serial output"),
    ):
        verbs.add_parser(verb, help=text).add_argument("name")
    return parser
