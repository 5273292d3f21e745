"""`thimble vm …`: everything but creating and changing VMs (`vm_edit`)."""

from __future__ import annotations

import time

import click

from thimble.cli import vm_view
from thimble.cli.command import HostCommand, TaskCommand, act, confirm, vm_names, width
from thimble.cli.session import CliSession
from thimble.cli.vm_edit import change, create
from thimble.cli.vm_parse import seconds
from thimble.contract.vm import ConsoleLog, DeleteRequest, PowerState, StartRequest, StopRequest, Vm, VmList
from thimble.core.problem import Code, Problem


@click.group(help="Virtual machines.")
def vm() -> None:
    """The group."""


vm.add_command(create)
vm.add_command(change)


def get(session: CliSession, name: str) -> Vm:
    """The VM called `name`, or with that id."""
    found: Vm = session.client.call("vm.get", path={"vm": name})
    return found


@vm.command("list", cls=HostCommand)
@click.pass_obj
def list_(session: CliSession) -> None:
    """List VMs."""
    vms: VmList = session.client.call("vm.list")
    session.emit(vms, lambda: vm_view.listing(vms, width=width()))


@vm.command("show", cls=HostCommand)
@click.argument("name", shell_complete=vm_names)
@click.pass_obj
def show_(session: CliSession, name: str) -> None:
    """Everything about one VM."""
    found = get(session, name)
    session.emit(found, lambda: vm_view.details(found, now=time.time()))


@vm.command("delete", cls=TaskCommand)
@click.argument("name", shell_complete=vm_names)
@click.option("--keep-volumes", is_flag=True, help="Keep the volumes created for it.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(session: CliSession, *, name: str, keep_volumes: bool, yes: bool) -> None:
    """Delete a VM and the volumes created for it."""
    confirm(session, f"Delete {name}" + ("?" if keep_volumes else " and its volumes?"), yes=yes)
    task = act(session, "vm.delete", DeleteRequest(keep_volumes=keep_volumes), path={"vm": name})
    session.done(task, lambda: f"{name}: deleted")


def _power(name: str, help: str) -> None:
    """A verb that needs nothing but the VM's name."""

    @vm.command(name, cls=TaskCommand, help=help)
    @click.argument("vm_name", metavar="NAME", shell_complete=vm_names)
    @click.pass_obj
    def command(session: CliSession, vm_name: str) -> None:
        act(session, f"vm.{name}", path={"vm": vm_name})
        tell(session, vm_name)


def tell(session: CliSession, name: str) -> None:
    """The VM as it is now, in one line."""
    if session.quiet and not session.json:
        return
    found = get(session, name)
    session.emit(found, lambda: vm_view.line(found))


@vm.command("start", cls=TaskCommand)
@click.argument("name", shell_complete=vm_names)
@click.option("--discard-saved", is_flag=True, help="Boot normally and discard the saved state.")
@click.pass_obj
def start(session: CliSession, *, name: str, discard_saved: bool) -> None:
    """Start a VM; a saved one resumes where it was saved."""
    act(session, "vm.start", StartRequest(discard_saved=discard_saved), path={"vm": name})
    tell(session, name)


@vm.command("stop", cls=TaskCommand)
@click.argument("name", shell_complete=vm_names)
@click.option(
    "--timeout", default="120s", metavar="TIME", help="How long the guest may take to shut down.  [120s]"
)
@click.option("--force", is_flag=True, help="Power it off if it has not shut down in time.")
@click.pass_obj
def stop(session: CliSession, *, name: str, timeout: str, force: bool) -> None:
    """Ask the guest to shut down."""
    act(session, "vm.stop", StopRequest(timeout_s=seconds(timeout), force=force), path={"vm": name})
    tell(session, name)


_power("kill", "Power off at once, like pulling the plug.")
_power("reset", "Press the reset button.")
_power("pause", "Pause a VM: stop its vCPUs.")
_power("resume", "Resume a paused VM.")
_power("save", "Suspend to disk: save a VM's memory and stop it; its next start resumes from there.")


@vm.command("console", cls=HostCommand)
@click.argument("name", shell_complete=vm_names)
@click.option("--timeout", metavar="TIME", help="Exit after this time.")
@click.pass_obj
def console(session: CliSession, name: str, timeout: str | None) -> None:
    """The serial console of a VM. Ctrl-] then . leaves; Ctrl-] then ? shows more.

    Its last output is printed first. Standard input may be a pipe: its bytes go to the guest as they are.
    """
    from thimble.cli.console import attach

    limit = None if timeout is None else seconds(timeout)
    attach(session.client.console(name), name, quiet=session.quiet, timeout=limit)


@vm.command("log", cls=HostCommand)
@click.argument("name", shell_complete=vm_names)
@click.pass_obj
def log(session: CliSession, name: str) -> None:
    """The last output of a VM's serial console."""
    said: ConsoleLog = session.client.call("vm.log", path={"vm": name})
    session.emit(said, lambda: said.text.rstrip("\r\n"))


@vm.command("wait", cls=HostCommand)
@click.argument("name", shell_complete=vm_names)
@click.option(
    "--for",
    "wanted",
    type=click.Choice(["address", *(state.value for state in PowerState)]),
    default=PowerState.RUNNING.value,
    help="A state, or an address.  [running]",
)
@click.option("--timeout", default="120s", metavar="TIME", help="Wait at most this long.  [120s]")
@click.pass_obj
def wait(session: CliSession, name: str, wanted: str, timeout: str) -> None:
    """Wait until a VM is in a state, or has an address."""
    limit = seconds(timeout)
    found = wait_for(session, name, wanted, limit)
    if found is None:
        raise Problem(
            Code.TIMEOUT,
            f"{name} is not {'in reach' if wanted == 'address' else wanted} after {limit:.0f} s",
            hint=f"It is {get(session, name).status.state}; `thimble vm log {name}` shows its output.",
        )
    session.emit(found, lambda: vm_view.line(found))


def wait_for(session: CliSession, name: str, wanted: str, timeout: float) -> Vm | None:
    """The VM when it is as `wanted`, looking again whenever it changes; None after `timeout` seconds."""
    start: VmList = session.client.call("vm.list")
    found = get(session, name)
    if reached(found, wanted):
        return found
    for event in session.client.events(start.rev, timeout=timeout):
        if found.id in (event.subject, event.detail.get("vm")):
            found = get(session, found.id)
            if reached(found, wanted):
                return found
    found = get(session, found.id)
    return found if reached(found, wanted) else None


def reached(vm: Vm, wanted: str) -> bool:
    """Whether the wait is over."""
    if wanted == "address":
        return any(nic.ip for nic in vm.nics) and vm.status.state is PowerState.RUNNING
    return vm.status.state == wanted
