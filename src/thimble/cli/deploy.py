"""`thimble host deploy|install|update|rollback|key …`: installation, A/B updates, rollback, update keys."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import click
from msgspec import UNSET

from thimble.cli import tables
from thimble.cli.command import (
    ChangingCommand,
    HostCommand,
    TaskCommand,
    act,
    choice,
    confirm,
    preview,
    width,
)
from thimble.cli.session import CliSession
from thimble.cli.tables import Column, table
from thimble.cli.vm_parse import seconds
from thimble.contract.common import DryRun, Task
from thimble.contract.deploy import (
    UPLOAD,
    Deploy,
    Guests,
    InstallRequest,
    Key,
    KeyCreate,
    KeyList,
    OldState,
    Outcome,
    Reboot,
    RollbackRequest,
    Slot,
    UpdatePolicy,
    UpdateRequest,
    Uploaded,
)
from thimble.core.problem import Code, Problem


@click.group("key", help="Keys whose updates this host accepts.")
def key() -> None:
    """The group."""


def details(found: Deploy) -> str:
    """What the host was started from, and what it can start from. Pure but for the time zone."""
    how = {"uefi": "UEFI", "bios": "BIOS"}.get(found.firmware, found.firmware)
    lines = [
        ("firmware", how + (", Secure Boot" if found.secure_boot else "")),
        ("started from", _medium(found)),
        ("running", f"{found.version}, build {found.build or '?'}" + (", on trial" if found.trial else "")),
        *((f"slot {slot.slot}", _slot(slot)) for slot in found.slots),
        ("mirror", found.mirror if found.installed else ""),
        ("out of sync", "\n".join(f"{d.disk}: {d.problem}" for d in found.devices if not d.in_step)),
        ("last", _outcome(found.last) if found.last else ""),
        ("updates", _policy(found.policy)),
    ]
    return tables.facts([(name, text) for name, text in lines if text])


def _policy(policy: UpdatePolicy) -> str:
    vms = {Guests.POLICY: "VMs as each one says", Guests.SAVE: "VMs saved", Guests.SHUTDOWN: "VMs shut down"}
    restart = {
        Reboot.KEXEC: "by kexec",
        Reboot.FIRMWARE: "by the firmware",
        Reboot.NONE: "at the next reboot",
    }
    source = f"from {policy.url}, " if policy.url else ""
    return f"{source}{vms[policy.vms]}, started {restart[policy.reboot]}"


def _medium(found: Deploy) -> str:
    if found.medium == "cd":
        return "a CD"
    disks = " and ".join(device.disk for device in found.devices)
    if not found.medium or not disks:
        return "the network, or a kernel handed over"
    return f"{disks}, {'installed' if found.installed else 'not installed'}"


def _slot(slot: Slot) -> str:
    if slot.state == "empty":
        return "empty"
    tries = f", {slot.tries_left} tries left" if slot.tries_left else ""
    return f"{slot.version}, build {slot.build}, {slot.state}{tries}{', running' if slot.running else ''}"


def _outcome(last: Outcome) -> str:
    when = datetime.datetime.fromtimestamp(last.begun).strftime("%Y-%m-%d %H:%M")
    why = f": {last.why}" if last.why else ""
    return f"{last.kind} to {last.version} (build {last.build}) of {when}: {last.state}{why}"


@click.command("deploy", cls=HostCommand)
@click.pass_obj
def deploy(session: CliSession) -> None:
    """Boot medium, slots (A/B), and the result of the last update."""
    found: Deploy = session.client.call("deploy.get")
    session.emit(found, lambda: details(found))


@click.command("install", cls=TaskCommand)
@click.argument("disk", required=False, default="")
@click.option(
    "--mirror",
    default="",
    metavar="DISK",
    help="Mirror on this disk; without DISK: add it to an installed host.",
)
@click.option("--erase", is_flag=True, help="Erase other data on the disk.")
@click.option(
    "--image", default="", metavar="FILE|URL|IMAGE", help="Install this image instead of the running one."
)
@click.option("--new-state", is_flag=True, help="Replace the state of an existing installation.")
@click.option("--reboot", is_flag=True, help="Reboot afterwards.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def install(
    session: CliSession,
    *,
    disk: str,
    mirror: str,
    erase: bool,
    image: str,
    new_state: bool,
    reboot: bool,
    yes: bool,
) -> None:
    """Install on DISK: serial:…, wwn:…, /dev/…, or `largest`. An existing datastore on it is kept."""
    if image and not session.dry_run:
        image = sent(session, image)
    wanted = InstallRequest(
        disk=disk,
        mirror=mirror,
        erase=erase,
        image=image,
        state=OldState.REPLACE if new_state else OldState.KEEP,
        reboot=reboot,
    )
    if not session.dry_run and not session.json:
        planned: DryRun = session.client.call("deploy.install", wanted, dry_run=True)
        if not planned.possible:
            preview(session, planned)
        session.note("\n".join(f"  {effect.what}" for effect in planned.effects))
    confirm(session, "Do this?", yes=yes)
    task: Task = act(session, "deploy.install", wanted)
    session.done(task, lambda: f"installed {task.result.get('version')} on {task.result.get('disk')}")


def _restart_options(command: Any) -> Any:
    for option in (
        click.option("--vms", type=choice(Guests), help="What happens to VMs.  [the host's policy]"),
        click.option("--restart", type=choice(Reboot), help="How the update is booted.  [the host's policy]"),
        click.option("--guest-timeout", default="120s", metavar="TIME", help="For the guests.  [120s]"),
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("update", cls=TaskCommand)
@click.argument("image", metavar="[FILE|URL|IMAGE]", required=False)
@click.option("--sha256", default="", metavar="DIGEST", help="Refuse the image unless it has this digest.")
@click.option("--allow-older", is_flag=True, help="Allow an older version.")
@_restart_options
@click.pass_obj
def update(
    session: CliSession,
    *,
    image: str | None,
    sha256: str,
    allow_older: bool,
    vms: str | None,
    restart: str | None,
    guest_timeout: str,
    yes: bool,
) -> None:
    """Update to a thimble.efi: a FILE here, a URL, or an image in a datastore of the host.

    Without one it comes from where the host's policy ([update] of its document) says.
    """
    confirm(session, "Update the host? Its VMs go down for the restart.", yes=yes)
    wanted = UpdateRequest(
        image=sent(session, image) if image else UNSET,
        sha256=sha256,
        allow_older=allow_older,
        vms=Guests(vms) if vms else UNSET,
        reboot=Reboot(restart) if restart else UNSET,
        guest_timeout_s=seconds(guest_timeout),
    )
    _going(
        session,
        "deploy.update",
        wanted,
        "the host restarts into the update (trial boot); `thimble host deploy` shows the result",
    )


@click.command("rollback", cls=TaskCommand)
@_restart_options
@click.pass_obj
def rollback(
    session: CliSession, *, vms: str | None, restart: str | None, guest_timeout: str, yes: bool
) -> None:
    """Roll back to the other slot."""
    confirm(session, "Roll back to the other slot? The VMs go down for the restart.", yes=yes)
    wanted = RollbackRequest(
        vms=Guests(vms) if vms else UNSET,
        reboot=Reboot(restart) if restart else UNSET,
        guest_timeout_s=seconds(guest_timeout),
    )
    _going(session, "deploy.rollback", wanted, "the host restarts into the other slot")


def _going(session: CliSession, verb: str, wanted: Any, done: str) -> None:
    task = act(session, verb, wanted, goes_down=True)
    session.done(task, lambda: done)


def sent(session: CliSession, image: str) -> str:
    """A local file is uploaded first; anything else is a name the host knows."""
    from thimble.cli.progress import bytes_on, meter

    source = Path(image)
    if "://" in image or not source.is_file():
        return image
    length = source.stat().st_size
    with source.open("rb") as content, meter(quiet=session.quiet or session.json) as shown:
        answer, digest = session.client.upload(
            "deploy.upload",
            content,
            length,
            path={},
            progress=lambda sent: bytes_on(shown, f"sending {source.name}", sent, length),
        )
    received: Uploaded = answer
    if received.sha256 != digest:
        raise Problem(Code.FAILED, "the host received other data than was sent", hint="Try again.")
    return UPLOAD


@key.command("list", cls=HostCommand)
@click.pass_obj
def key_list(session: CliSession) -> None:
    """List the keys."""
    found: KeyList = session.client.call("key.list")
    rows = [(k.name, "of the image" if k.built_in else "added", k.fingerprint) for k in found.keys]
    columns = [Column(title) for title in ("name", "origin", "sha-256")]
    session.emit(found, lambda: table(columns, rows, width=width()) if rows else "no keys yet")


@key.command("add", cls=ChangingCommand)
@click.argument("name")
@click.argument("certificate", type=click.Path(dir_okay=False))
@click.pass_obj
def key_add(session: CliSession, name: str, certificate: str) -> None:
    """Accept images signed by the owner of CERTIFICATE, a file in PEM."""
    try:
        pem = Path(certificate).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(Code.INVALID, f"cannot read {certificate}: {error}") from error
    made: Key = act(session, "key.create", KeyCreate(name=name, certificate=pem))
    session.done(made, lambda: f"images signed by {made.name} are accepted (SHA-256 {made.fingerprint})")


@key.command("remove", cls=ChangingCommand)
@click.argument("name")
@click.pass_obj
def key_remove(session: CliSession, name: str) -> None:
    """Stop accepting images signed with that key."""
    act(session, "key.delete", path={"key": name})
    session.say(f"images signed by {name} are no longer accepted")


COMMANDS = (deploy, install, update, rollback, key)
