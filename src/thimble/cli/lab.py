"""`thimble lab …`: virtual servers to boot the image in. They run here, not on a host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from thimble.cli.builder import part, reporting
from thimble.cli.command import LocalCommand, width
from thimble.cli.session import CliSession
from thimble.cli.tables import Column, as_json, table
from thimble.cli.vm_parse import memory_mib
from thimble.core.units import MIB, show_size

COLUMNS = (
    Column("name", least=12),
    Column("power"),
    Column("cpus", right=True),
    Column("memory", right=True),
    Column("firmware"),
    Column("acceleration"),
    Column("process", right=True),
)


@click.group(help="Virtual servers to boot the image in, on this machine.")
def lab() -> None:
    """The group."""


@lab.command("up", cls=LocalCommand)
@click.argument("name", default="lab")
@click.option("--profile", metavar="NAME", help="Boot out/NAME.  [server, else virtual]")
@click.option(
    "--image", type=click.Path(file_okay=False), metavar="DIR", help="A directory `image build` wrote."
)
@click.option("--cpus", type=int, default=2, metavar="N", help="[2]")
@click.option("--memory", default="2G", metavar="SIZE", help="[2G]")
@click.option(
    "--disk",
    "disks",
    multiple=True,
    metavar="DISK",
    help="10G, state:8G, nvme:10G, a file, keep:FILE, cd:FILE.",
)
@click.option("--nic", "nics", multiple=True, metavar="NIC", help="user:443,22 or wire:NAME.  [user:443]")
@click.option(
    "--medium", type=click.Choice(["direct", "efi", "img", "iso", "none"]), help="What it boots.  [direct]"
)
@click.option(
    "--firmware", type=click.Choice(["direct", "uefi", "bios"]), help="[direct, or uefi for a medium]"
)
@click.option("--bus", type=click.Choice(["virtio", "ahci", "nvme", "usb"]), help="The bus of the medium.")
@click.option("--secure-boot", is_flag=True, help="UEFI with Secure Boot, in setup mode.")
@click.option("--append", default="", metavar="WORDS", help="Append to the kernel command line.")
@click.pass_obj
def up(session: CliSession, /, **given: Any) -> None:
    """Create a virtual server and power it on."""
    command, spec = part("lab.command"), part("lab.spec")
    wanted = command.spec_of_image(
        _image(given["image"], given["profile"]),
        name=given["name"],
        cpus=given["cpus"],
        memory_mib=memory_mib(given["memory"]),
        firmware=spec.Firmware(given["firmware"]) if given["firmware"] else None,
        medium=spec.Medium(given["medium"]) if given["medium"] else None,
        bus=spec.Bus(given["bus"]) if given["bus"] else None,
        secure_boot=given["secure_boot"],
        disks=tuple(map(spec.parse_disk, given["disks"])),
        nics=tuple(map(spec.parse_nic, given["nics"] or ("user:443",))),
        append=given["append"],
    )
    with reporting(session) as report:
        result = command.up(wanted, report)
    if session.json:
        click.echo(as_json(result))
        return
    session.say(f"{result['name']} is on ({result['accel']})")
    for port, here in result["forwards"].items():
        session.say(f"  its port {port} is {'https://' if port == '443' else ''}{here}")


def _image(image: str | None, profile: str | None) -> Path:
    if image:
        return Path(image)
    built = [name for name in ("server", "virtual") if (Path("out") / name / "initrd").exists()]
    return Path("out") / (profile or next(iter(built), "server"))


@lab.command("cuts", cls=LocalCommand)
@click.argument("kind", type=click.Choice(["update", "install", "apply"]))
@click.option("--count", type=click.IntRange(1), default=10, metavar="N", help="How many.  [10]")
@click.option("--seed", type=int, default=1, metavar="N", help="Seed of the random moments.  [1]")
@click.option("--profile", metavar="NAME", help="Rehearse out/NAME.  [server, else virtual]")
@click.option(
    "--image", type=click.Path(file_okay=False), metavar="DIR", help="A directory `image build` wrote."
)
@click.option("--firmware", type=click.Choice(["uefi", "bios"]), default="uefi", help="[uefi]")
@click.option("--keep", is_flag=True, help="Leave a failed server on.")
@click.pass_obj
def cuts(session: CliSession, /, **given: Any) -> None:
    """Cut a virtual server's power at random moments and check that it comes back.

    Its disk loses what was not flushed. Ends at the first failure, with exit code 1.
    """
    spec = part("lab.spec")
    with reporting(session) as report:
        result = part("rehearsal.command").cuts(
            given["kind"],
            _image(given["image"], given["profile"]),
            count=given["count"],
            seed=given["seed"],
            firmware=spec.Firmware(given["firmware"]),
            keep=given["keep"],
            say=session.note,
            report=report,
        )
    if session.json:
        click.echo(as_json(result))
    session.say(f"survived {result['survived']} of {result['cuts']} cuts")
    if result["survived"] < result["cuts"]:
        raise SystemExit(1)


@lab.command("down", cls=LocalCommand)
@click.argument("name", default="lab")
@click.option("--force", is_flag=True, help="Cut the power instead of pressing the button.")
@click.option("--keep", is_flag=True, help="Keep its disks.")
@click.pass_obj
def down(session: CliSession, *, name: str, force: bool, keep: bool) -> None:
    """Power a virtual server off and remove it."""
    part("lab.command").down(name, force=force, keep=keep)
    session.say(f"{name} is off" + ("" if keep else " and removed"))


@lab.command("list", cls=LocalCommand)
@click.pass_obj
def list_(session: CliSession) -> None:
    """List virtual servers."""
    entries = part("lab.home").entries()
    click.echo(as_json(entries) if session.json else listing(entries, width=width()))


def listing(entries: list[Any], *, width: int | None) -> str:
    """One row each. Pure."""
    rows = [
        (
            one.name, "on" if one.running else "off", str(one.cpus), show_size(one.memory_mib * MIB),
            str(one.firmware), one.accel, str(one.pid or ""),
        )
        for one in entries
    ]  # fmt: skip
    return table(COLUMNS, rows, width=width) if rows else "no virtual servers; `thimble lab up` creates one"


@lab.command("console", cls=LocalCommand)
@click.argument("name", default="lab")
def console(name: str) -> None:
    """A virtual server's serial line, until Ctrl-]."""
    part("lab.command").console(name)


@lab.command("log", cls=LocalCommand)
@click.argument("name", default="lab")
def log(name: str) -> None:
    """The whole serial output of a virtual server."""
    home = part("lab.home")
    home.read_spec(home.of(name))
    sys.stdout.buffer.write((home.of(name) / "serial.log").read_bytes())
    sys.stdout.flush()
