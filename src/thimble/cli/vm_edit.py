"""`thimble vm create` and `thimble vm change`: their options and requests."""

from __future__ import annotations

import secrets
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from thimble.cli import vm_view
from thimble.cli.command import TaskCommand, act, choice, vm_names
from thimble.cli.session import CliSession
from thimble.cli.vm_parse import spec_file, typed
from thimble.cli.vm_spec import alteration, creation
from thimble.contract.vm import (
    Applies,
    CrashPolicy,
    Firmware,
    HostShutdown,
    Machine,
    SeedMethod,
    Vm,
    VmChange,
    VmCreate,
    fields,
)
from thimble.core.problem import Code, Problem

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
DEVICES = ("rng", "balloon", "serial", "vga", "tablet", "guest-agent")


def _all(*decorators: Decorator) -> Decorator:
    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for one in reversed(decorators):
            function = one(function)
        return function

    return decorate


def _when() -> str:
    """For the help: when each change takes effect."""
    lines = []
    for when in Applies:
        names = ", ".join(name.removesuffix("_mib").replace("_", "-") for name in fields(when))
        lines.append(f"{when[0].upper()}{when[1:]}: {names}.")
    return "\b\n" + "\n".join(textwrap.fill(line, 76, subsequent_indent="  ") for line in lines)


#: What create and change have in common.
shared = _all(
    click.option("--description", metavar="TEXT"),
    click.option("--cpus", "vcpus", type=int, metavar="N", help="Number of vCPUs."),
    click.option("--memory", metavar="SIZE", help="Such as 512M or 4G."),
    click.option("--cpu", metavar="MODEL", help="host, x86-64-v2, x86-64-v3, or a model of QEMU's."),
    click.option("--firmware", type=choice(Firmware)),
    click.option("--kernel", metavar="IMAGE", help="Boot this kernel directly, without firmware."),
    click.option("--initrd", metavar="IMAGE", help="With this initial RAM disk."),
    click.option("--cmdline", metavar="TEXT", help="And this command line."),
    click.option("--autostart/--no-autostart", default=None, help="Start it when the host starts."),
    click.option("--autostart-order", type=int, metavar="N", help="Lower numbers start first."),
    click.option("--autostart-delay", type=float, metavar="SECONDS", help="Pause before the next VM."),
    click.option("--on-crash", type=choice(CrashPolicy), help="What to do when QEMU fails."),
    click.option("--host-shutdown", type=choice(HostShutdown), help="When the host goes down.  [shutdown]"),
    click.option("--file", "file", type=click.Path(dir_okay=False), metavar="SPEC",
                 help="The API's fields in JSON or TOML; - is standard input."),
)  # fmt: skip

seeding = _all(
    click.option("--hostname", metavar="NAME", help="The guest's own name."),
    click.option("--user", metavar="NAME", help="Who the SSH keys are for.  [root]"),
    click.option("--ssh-key", "ssh_keys", multiple=True, metavar="FILE",
                 help="A public key file, or the key itself."),
    click.option("--password-hash", metavar="CRYPT", help="Of crypt(3), such as `openssl passwd -6` makes."),
    click.option("--address", metavar="CIDR", help="The guest's static address.  [DHCP]"),
    click.option("--gateway", metavar="IP"),
    click.option("--dns", multiple=True, metavar="IP"),
    click.option("--user-data", type=click.Path(dir_okay=False), metavar="FILE",
                 help="A whole #cloud-config of your own."),
    click.option("--seed-method", type=choice(SeedMethod)),
)  # fmt: skip


@click.command(cls=TaskCommand)
@click.argument("name", required=False)
@shared
@seeding
@click.option(
    "--disk",
    "disks",
    multiple=True,
    metavar="SIZE[,image=IMAGE][,bus=BUS]…",
    help="A new disk; or volume=NAME.",
)
@click.option("--nic", "nics", multiple=True, metavar="SWITCH[,mac=MAC][,model=MODEL]")
@click.option("--cdrom", "cdroms", multiple=True, metavar="IMAGE")
@click.option("--machine", type=choice(Machine))
@click.option("--datastore", metavar="NAME", help="Datastore of the VM.")
@click.option("--without", multiple=True, type=click.Choice(DEVICES), help="Leave this device out.")
@click.option("--start", is_flag=True, default=None, help="Also start it.")
@click.pass_obj
def create(session: CliSession, /, **given: Any) -> None:
    """Create a VM. For example:

    \b
    thimble vm create web1 --memory 1G --disk 10G,image=debian.qcow2 \\
        --nic nat --ssh-key ~/.ssh/id_ed25519.pub --start
    """
    spec = typed(creation(given, _file(given["file"]), read), VmCreate, "the VM")
    task = act(session, "vm.create", spec, key=secrets.token_hex(16))
    found: Vm = session.client.call("vm.get", path={"vm": task.subject})
    session.done(found, lambda: f"created {vm_view.line(found)}")


@click.command(cls=TaskCommand, epilog=_when())
@click.argument("name", shell_complete=vm_names)
@shared
@seeding
@click.option("--rename", metavar="NAME", help="Its new name.")
@click.option("--add-disk", multiple=True, metavar="SIZE[,image=IMAGE]…", help="As for create.")
@click.option("--remove-disk", multiple=True, metavar="DISK", help="By its name, such as disk1.")
@click.option("--add-nic", multiple=True, metavar="SWITCH[,mac=MAC]…")
@click.option("--remove-nic", multiple=True, metavar="NIC")
@click.option(
    "--insert", multiple=True, metavar="[DRIVE=]IMAGE", help="Insert this image into a CD-ROM drive."
)
@click.option("--eject", multiple=True, metavar="DRIVE", help="Eject this CD-ROM drive.")
@click.option("--with", "with_", multiple=True, type=click.Choice(DEVICES))
@click.option("--without", multiple=True, type=click.Choice(DEVICES))
@click.pass_obj
def change(session: CliSession, /, **given: Any) -> None:
    """Change a VM: hot where possible, else at its next cold start."""
    seen: Vm = session.client.call("vm.get", path={"vm": given["name"]})
    wanted = typed(alteration(given, _file(given["file"]), seen, read), VmChange, "the change")
    if wanted == VmChange():
        raise Problem(Code.INVALID, "nothing to change", hint="`thimble vm change --help` lists what can be.")
    act(session, "vm.change", wanted, path={"vm": seen.id}, if_match=seen.rev)
    found: Vm = session.client.call("vm.get", path={"vm": seen.id})
    session.done(found, lambda: f"changed {vm_view.line(found)}")


def _file(name: str | None) -> dict[str, Any]:
    return {} if name is None else spec_file(name, read(name))


def read(name: str) -> str:
    """A file's text; `-` is standard input. Raises `Problem` INVALID."""
    try:
        return click.get_text_stream("stdin").read() if name == "-" else Path(name).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(Code.INVALID, f"cannot read {name}: {error}") from error
