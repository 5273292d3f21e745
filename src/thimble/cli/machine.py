"""`thimble host hardware|sensors|health|time|logs|bundle|blink|syslog`: the machine itself."""

from __future__ import annotations

import datetime
import sys
import time as clock
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from thimble.cli import machine_view as view
from thimble.cli.command import ChangingCommand, HostCommand, act, choice
from thimble.cli.session import CliSession
from thimble.cli.tables import safe
from thimble.cli.vm_parse import seconds
from thimble.contract.hardware import Hardware, Health, Level, LogLevel, Logs, Sensors, Time
from thimble.contract.host import Blink, Host, HostChange
from thimble.core.problem import Code, Problem
from thimble.core.units import show_size


@click.command("hardware", cls=HostCommand)
@click.option("--pci", is_flag=True, help="Also list all PCI devices.")
@click.pass_obj
def hardware(session: CliSession, pci: bool) -> None:  # noqa: FBT001
    """Show the hardware inventory."""
    found: Hardware = session.client.call("host.hardware")
    session.emit(found, lambda: view.hardware(found, pci=pci, names=view.pci_names() if pci else {}))


@click.command("sensors", cls=HostCommand)
@click.pass_obj
def sensors(session: CliSession) -> None:
    """Temperatures, fans, voltages, power; the management controller and its event log."""
    found: Sensors = session.client.call("host.sensors")
    session.emit(found, lambda: view.sensors(found))


@click.command("health", cls=HostCommand)
@click.option("--thorough", is_flag=True, help="Also query disks and the BMC now.")
@click.pass_obj
def health(session: CliSession, thorough: bool) -> None:  # noqa: FBT001
    """Show the host's health, with reasons. Exit code 1 when something is critical."""
    found: Health = session.client.call("host.health", query={"thorough": int(thorough)})
    session.emit(found, lambda: view.health(found, now=clock.time()))
    if found.level is Level.CRITICAL:
        raise click.exceptions.Exit(1)


@click.command("time", cls=HostCommand)
@click.pass_obj
def time(session: CliSession) -> None:
    """Show the host's clock and its time servers."""
    found: Time = session.client.call("host.time")
    session.emit(found, lambda: view.time(found))


@click.command("logs", cls=HostCommand)
@click.option("--follow", "-f", is_flag=True, help="Follow the log until Ctrl-C.")
@click.option("--lines", "-n", type=click.IntRange(0, 10_000), help="How many.  [200; with -f 10]")
@click.option("--level", type=choice(LogLevel), help="This level or worse.  [all]")
@click.option("--source", metavar="NAMES", help="Only these sources, such as kernel,agent.  [all]")
@click.option("--since", metavar="TIME", help="Only lines of the last TIME, such as 10m or 2h.")
@click.option("--timeout", metavar="TIME", help="With -f: exit after this time.")
@click.pass_obj
def logs(
    session: CliSession, *, follow: bool, lines: int | None, level: str | None, source: str | None,
    since: str | None, timeout: str | None,
) -> None:  # fmt: skip
    """The log of kernel, PID 1, agent and daemons (with --json -f: a JSON object each line)."""
    query: dict[str, object] = {
        "lines": lines,
        "level": level,
        "source": source,
        "since": None if since is None else f"{clock.time() - seconds(since):.3f}",
    }
    query = {name: value for name, value in query.items() if value is not None}
    if not follow:
        found: Logs = session.client.call("host.logs", query=query)
        session.emit(found, lambda: "\n".join(map(view.log_line, found.lines)))
        return
    for line in session.client.logs(query, timeout=None if timeout is None else seconds(timeout)):
        click.echo(msgspec.json.encode(line) if session.json else safe(view.log_line(line)))


@click.command("bundle", cls=HostCommand)
@click.option(
    "--out", "-o", metavar="FILE", help="Output file; `-` is standard output.  [thimble-NAME-DATE.tar.gz]"
)
@click.pass_obj
def bundle(session: CliSession, out: str | None) -> None:
    """Save a support bundle (tar.gz) without passwords, keys and tokens."""
    if out == "-":
        session.client.download("host.bundle", sys.stdout.buffer)
        return
    host: Host = session.client.call("host.get")
    day = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    name = "".join(mark if mark.isalnum() or mark in "-." else "_" for mark in host.name)
    path = Path(out or f"thimble-{name}-{day}.tar.gz")
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("xb") as file:
            count = session.client.download("host.bundle", file)
        partial.replace(path)
    except OSError as error:
        raise Problem(Code.FAILED, f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    session.say(f"{path}, {show_size(count)}: review it before you pass it on")


@click.command("blink", cls=ChangingCommand)
@click.argument("what")
@click.option("--for", "duration", default="15s", metavar="TIME", help="How long.  [15s]")
@click.pass_obj
def blink(session: CliSession, what: str, duration: str) -> None:
    """Blink the LED of a network port (MAC or name) or of a disk's slot (serial:…, wwn:…, device)."""
    act(session, "host.blink", Blink(what=what, seconds=seconds(duration)))
    session.say(f"{what} blinks for {duration}")


@click.command("syslog", cls=ChangingCommand)
@click.argument("target", required=False)
@click.pass_obj
def syslog(session: CliSession, target: str | None) -> None:
    """Send the log to TARGET: udp://ADDRESS[:514], tcp://ADDRESS[:514], or `off`. Without: show."""
    if target is None:
        shown: Host = session.client.call("host.get")
    else:
        wanted = HostChange(syslog="" if target == "off" else target)
        shown = act(session, "host.change", wanted)
    session.emit(shown, lambda: f"the log goes to {shown.syslog or 'nowhere'}")


COMMANDS = (hardware, sensors, health, time, logs, bundle, blink, syslog)
