"""`thimble host …`: the host itself, and `host run`, which is one."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from thimble.cli import tables
from thimble.cli.builder import part, reporting
from thimble.cli.command import ChangingCommand, HostCommand, LocalCommand, TaskCommand, act, choice, confirm
from thimble.cli.session import CliSession
from thimble.cli.vm_parse import seconds
from thimble.contract.common import Event
from thimble.contract.host import Host, HostChange, HostLog, MediumWrites, PowerRequest, Pressure
from thimble.contract.vm import HostShutdown
from thimble.core.units import show_seconds, show_size


@click.group(help="The host itself.")
def host() -> None:
    """The group."""


def details(one: Host) -> str:
    """Everything about the host. Pure."""
    load = " ".join(f"{value:.2f}" for value in one.load)
    accel = one.accel if one.accel == "kvm" else f"{one.accel}: {one.accel_why}"
    return tables.facts(
        [
            ("name", one.name),
            ("health", one.health),
            ("version", f"{one.version}, {'hosted' if one.hosted else 'on its own'}"),
            ("addresses", "\n".join(one.addresses)),
            ("up", f"{show_seconds(one.uptime_s)}, was ready after {show_seconds(one.ready_s)}"),
            ("VMs", f"{one.vms}, {one.vms_running} running"),
            ("CPUs", f"{one.cpus} × {one.cpu_model}, load {load}"),
            ("memory", f"{show_size(one.memory_bytes)}, {show_size(one.memory_available_bytes)} available"),
            ("waiting", pressure_words(one.pressure)),
            ("acceleration", accel),
            ("kernel", one.kernel),
            ("QEMU", one.qemu),
            ("state", f"{one.state} {one.state_where}".strip()),
            ("boot medium", medium_words(one.medium_writes)),
            ("log goes to", one.syslog),
            ("certificate", f"SHA-256 {one.certificate_sha256}"),
            ("warnings", "\n".join(one.warnings)),
        ]
    )


def pressure_words(pressure: Mapping[str, Pressure]) -> str:
    """`cpu 0 %, memory 0 %, io 3 % of the last minute`; nothing where the kernel does not measure it."""
    words = [f"{name} {one.some[1]:.0f} %" for name, one in pressure.items()]
    return f"{', '.join(words)} of the last minute" if words else ""


def medium_words(writes: MediumWrites | None) -> str:
    """`/dev/sda, 12 KiB written since boot, 0 B in the last hour`; nothing without a medium."""
    if writes is None:
        return ""
    whole, hour = show_size(writes.since_boot_bytes), show_size(writes.last_hour_bytes)
    return f"{writes.disk}, {whole} written since boot, {hour} in the last hour"


@host.command("show", cls=HostCommand)
@click.pass_obj
def show_(session: CliSession) -> None:
    """Show the host's state."""
    found: Host = session.client.call("host.get")
    session.emit(found, lambda: details(found))


host.add_command(show_, "status")


@host.command("rename", cls=ChangingCommand)
@click.argument("name")
@click.pass_obj
def rename(session: CliSession, name: str) -> None:
    """Rename the host."""
    found: Host = act(session, "host.change", HostChange(name=name))
    session.done(found, lambda: f"this host is now called {found.name}")


@host.command("log", cls=HostCommand)
@click.option("--lines", "-n", type=click.IntRange(1, 5000), default=100, help="How many.  [100]")
@click.pass_obj
def log(session: CliSession, lines: int) -> None:
    """The last lines of the host's log."""
    found: HostLog = session.client.call("host.log", query={"lines": lines})
    session.emit(found, lambda: "\n".join(found.lines))


_ENDED = {
    None: "shut down, or what each VM's `host-shutdown` says",
    HostShutdown.SAVE: "saved",
    HostShutdown.SHUTDOWN: "shut down",
    HostShutdown.KILL: "powered off",
}


def _power(name: str, verb: str, help: str, done: str) -> None:
    @host.command(name, cls=TaskCommand, help=help)
    @click.option(
        "--guest-timeout",
        default="120s",
        metavar="TIME",
        help="Time guests get to shut down.  [120s]",
    )
    @click.option(
        "--guests", type=choice(HostShutdown), help="Do this with all VMs.  [each VM's host-shutdown]"
    )
    @click.option("--yes", "-y", is_flag=True, help="Do not ask.")
    @click.pass_obj
    def command(session: CliSession, *, guest_timeout: str, guests: str | None, yes: bool) -> None:
        how = HostShutdown(guests) if guests else None
        confirm(session, f"{name.capitalize()} the host? Its guests are {_ENDED[how]}.", yes=yes)
        wanted = PowerRequest(guest_timeout_s=seconds(guest_timeout), guests=how)
        task = act(session, verb, wanted, goes_down=True)
        session.done(task, lambda: done)


_power("reboot", "host.reboot", "Shut the guests down and reboot.", "the host reboots")
_power("shutdown", "host.shutdown", "Shut the guests down and power off.", "the host powers off")


@host.command("events", cls=HostCommand)
@click.option("--after", type=int, metavar="REV", help="Start after this revision.  [now]")
@click.option("--timeout", metavar="TIME", help="Exit after this time.")
@click.pass_obj
def events(session: CliSession, after: int | None, timeout: str | None) -> None:
    """Print events, one per line (with --json: JSON), until Ctrl-C."""
    for event in session.client.events(after, timeout=None if timeout is None else seconds(timeout)):
        click.echo(msgspec.json.encode(event) if session.json else event_line(event))


def event_line(event: Event) -> str:
    """`12:00:01 vm.changed vm-1234 state=running`. Pure but for the time zone."""
    clock = datetime.datetime.fromtimestamp(event.time).strftime("%H:%M:%S")
    detail = " ".join(f"{key}={value}" for key, value in event.detail.items() if value)
    return tables.safe(f"{clock} {event.kind} {event.subject} {detail}".rstrip())


@host.command("run", cls=LocalCommand)
@click.option(
    "--state", type=click.Path(file_okay=False), metavar="DIR", help="Directory for records and disks."
)
@click.option(
    "--run", "run_dir", type=click.Path(file_okay=False), metavar="DIR", help="Directory for sockets; in RAM."
)
@click.option("--listen", metavar="[ADDRESS:]PORT", help="Address and port of the API.  [8443]")
@click.option(
    "--qemu-dir",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Directory of QEMU's programs.  [PATH]",
)
@click.option("--share", type=click.Path(file_okay=False), metavar="DIR", help="OVMF, SeaBIOS.  [/usr/share]")
@click.option("--toolbox", is_flag=True, help="Take QEMU and firmware from the image builder's toolbox.")
@click.option(
    "--password-file", type=click.Path(dir_okay=False), metavar="FILE", help="admin's first password."
)
@click.pass_obj
def run(session: CliSession, /, **given: Any) -> None:
    """Run a host on this Linux. Ctrl-C ends the agent; VMs keep running and the next agent reattaches."""
    agent, accel = part("app"), part("host.hardware").accel()
    if accel.name != "kvm":
        session.note(f"WARNING: no hardware virtualization ({accel.why}): guests are emulated and slow.")
    if given["toolbox"]:
        with reporting(session) as report:
            box = part("image.toolbox").ensure(report)
        given["qemu_dir"] = given["qemu_dir"] or str(box.wrappers)
        given["share"] = given["share"] or str(box.path("usr/share"))
    raise click.exceptions.Exit(agent.main(arguments(given, os.environ, root=os.geteuid() == 0)) or 0)


def arguments(given: Mapping[str, Any], environment: Mapping[str, str], *, root: bool) -> list[str]:
    """The agent's argument vector: root's state is the system's, anybody else's lies at home. Pure."""
    home = environment.get("HOME", "/")
    at_home = {
        "state": (environment.get("XDG_STATE_HOME") or f"{home}/.local/state") + "/thimble/host",
        "run_dir": (environment.get("XDG_RUNTIME_DIR") or f"{home}/.cache") + "/thimble",
    }
    argv = ["--hosted", "yes"]
    for option, name in (
        ("--state", "state"),
        ("--run", "run_dir"),
        ("--listen", "listen"),
        ("--qemu-dir", "qemu_dir"),
        ("--share", "share"),
        ("--password-file", "password_file"),
    ):
        if value := given[name] or (None if root else at_home.get(name)):
            argv += [option, str(value)]
    return argv


def _more() -> None:
    """Commands of this group that live in a module of their own."""
    from thimble.cli import deploy, machine, management, neighbours

    for command in (*deploy.COMMANDS, management.network, *machine.COMMANDS, *neighbours.COMMANDS):
        host.add_command(command)


_more()
