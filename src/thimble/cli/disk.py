"""`thimble disk …`: volumes; `disk image …`: images; `disk store …`: datastores."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from thimble.cli.command import (
    ChangingCommand,
    TaskCommand,
    act,
    choice,
    preview,
)
from thimble.cli.session import CliSession
from thimble.cli.standard import add_delete, add_list
from thimble.cli.tables import Column, table
from thimble.contract.storage import (
    Datastore,
    DatastoreCreate,
    DatastoreKind,
    DatastoreList,
    Image,
    ImageList,
    VolumeCreate,
    VolumeList,
)
from thimble.contract.vm import DiskFormat
from thimble.core.problem import Code, Problem
from thimble.core.units import parse_size, show_size

VOLUMES = (
    Column("name", least=20),
    Column("size", right=True),
    Column("used", right=True),
    Column("format"),
    Column("used by", least=11),
)
IMAGES = (
    Column("name", least=20),
    Column("format"),
    Column("file", right=True),
    Column("size", right=True),
    Column("sha-256", least=12),
)
STORES = (
    Column("name", least=10),
    Column("kind"),
    Column("free", right=True),
    Column("size", right=True),
    Column("durable"),
    Column("where", least=12),
    Column("note", least=7),
)


@click.group(help="Volumes, images and datastores.")
def disk() -> None:
    """The group."""


@disk.group(help="Images: for new disks, CD-ROM drives and direct boot.")
def image() -> None:
    """The group."""


@disk.group(help="Datastores: where VMs, volumes and images are kept.")
def store() -> None:
    """The group."""


def volumes_table(volumes: VolumeList, *, width: int | None) -> str:
    """Pure."""
    rows = [
        (one.name, show_size(one.size_bytes), show_size(one.used_bytes), str(one.format), one.vm or "")
        for one in volumes.volumes
    ]
    return table(VOLUMES, rows, width=width) if rows else "no volumes yet"


def images_table(images: ImageList, *, width: int | None) -> str:
    """Pure."""
    rows = [
        (one.name, one.format, show_size(one.file_bytes), show_size(one.size_bytes), one.sha256)
        for one in images.images
    ]
    return table(IMAGES, rows, width=width) if rows else "no images yet; `thimble disk image upload FILE`"


def stores_table(stores: DatastoreList, *, width: int | None) -> str:
    """Pure."""
    rows = [
        (
            one.name, str(one.kind), show_size(one.free_bytes), show_size(one.size_bytes),
            "yes" if one.durable else "no", one.where, ", ".join(_notes(one)),
        )
        for one in stores.datastores
    ]  # fmt: skip
    return table(STORES, rows, width=width)


def _notes(one: Datastore) -> list[str]:
    notes = ["default"] if one.default else []
    return notes if one.mounted else [*notes, f"not mounted: {one.why}"]


add_list(disk, "volume.list", "List volumes.", volumes_table)


@disk.command("create", cls=TaskCommand)
@click.argument("name")
@click.argument("size", required=False)
@click.option("--image", metavar="IMAGE", help="Copy this image and grow it to SIZE.")
@click.option("--datastore", default="", metavar="NAME")
@click.option("--format", type=choice(DiskFormat), default=DiskFormat.QCOW2.value)
@click.pass_obj
def create(
    session: CliSession, name: str, size: str | None, image: str | None, datastore: str, format: str
) -> None:
    """Create a volume of SIZE, such as 10G."""
    wanted = VolumeCreate(
        name=name,
        datastore=datastore,
        size_bytes=parse_size(size) if size else None,
        image=image,
        format=DiskFormat(format),
    )
    task = act(session, "volume.create", wanted, key=secrets.token_hex(16))
    session.done(task, lambda: f"created {task.result.get('volume', name)}")


add_delete(disk, "volume", "Delete a volume no VM uses. NAME is datastore/name, as listed.")


add_list(image, "image.list", "List images.", images_table)


@image.command("upload", cls=ChangingCommand)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--as", "name", default="", metavar="[DATASTORE/]NAME", help="Its name on the host.  [the file's]"
)
@click.option("--sha256", metavar="DIGEST", help="Refuse it unless it has this digest.")
@click.pass_obj
def upload(session: CliSession, file: str, name: str, sha256: str | None) -> None:
    """Upload an image: qcow2, raw, ISO, a kernel, an initrd, …"""
    from thimble.cli.progress import bytes_on, meter

    source = Path(file)
    name = name or source.name
    try:
        with source.open("rb") as content, meter(quiet=session.quiet or session.json) as shown:
            length = source.stat().st_size
            answer, digest = session.client.upload(
                "image.upload",
                content,
                0 if session.dry_run else length,
                path={"image": name},
                query={"sha256": sha256},
                progress=lambda sent: bytes_on(shown, f"uploading {source.name}", sent, length),
                dry_run=session.dry_run,
            )
    except OSError as error:
        raise Problem(Code.INVALID, f"cannot read {file}: {error.strerror or error}") from error
    if session.dry_run:
        preview(session, answer)
    stored: Image = answer
    if stored.sha256 != digest:
        raise Problem(
            Code.FAILED,
            f"the host stored {stored.name} with a different digest than was sent",
            hint=f"Delete it with `thimble disk image delete {stored.name}`, and upload it again.",
        )
    session.done(stored, lambda: f"uploaded {stored.name}: {stored.format}, {show_size(stored.size_bytes)}")


add_delete(image, "image", "Delete an image.")


add_list(store, "datastore.list", "List datastores.", stores_table)


@store.command("create", cls=ChangingCommand)
@click.argument("name")
@click.option("--directory", metavar="PATH", help="A directory on the host.")
@click.option("--disk", "device", metavar="DEVICE", help="A whole disk or partition with ext4 on it.")
@click.option("--ram", metavar="SIZE", help="In RAM, at most this much; lost at reboot.")
@click.option("--format", is_flag=True, help="Create a file system on the disk.")
@click.option("--erase", is_flag=True, help="Erase an existing file system.")
@click.pass_obj
def store_create(
    session: CliSession,
    *,
    name: str,
    directory: str | None,
    device: str | None,
    ram: str | None,
    format: bool,
    erase: bool,
) -> None:
    """Create a datastore, or adopt the one found there."""
    kinds = {DatastoreKind.DIRECTORY: directory, DatastoreKind.DISK: device, DatastoreKind.RAM: ram}
    chosen = [kind for kind, value in kinds.items() if value]
    if len(chosen) != 1:
        raise Problem(Code.INVALID, "no location given", hint="Exactly one of --directory, --disk and --ram.")
    wanted = DatastoreCreate(
        name=name,
        kind=chosen[0],
        path=directory or "",
        device=device or "",
        format=format,
        erase=erase,
        size_bytes=parse_size(ram) if ram else None,
    )
    made: Datastore = act(session, "datastore.create", wanted, key=secrets.token_hex(16))
    session.done(made, lambda: f"created {made.name}: {show_size(made.free_bytes)} free at {made.where}")


@store.command("delete", cls=ChangingCommand)
@click.argument("name")
@click.pass_obj
def store_delete(session: CliSession, name: str) -> None:
    """Remove a datastore from the host's list; its files stay."""
    act(session, "datastore.delete", path={"datastore": name})
    session.say(f"{name} removed; its files stay where they are")
