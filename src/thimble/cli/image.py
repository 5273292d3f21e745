"""`thimble image …`: build, sign, inspect and write what boots. Here, not on a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from thimble.cli.builder import part, reporting
from thimble.cli.command import LocalCommand, confirm
from thimble.cli.session import CliSession
from thimble.cli.tables import as_json

PROFILES = ("server", "virtual")


@click.group(help="Build, sign and write the bootable image, on this machine.")
def image() -> None:
    """The group."""


@image.command("build", cls=LocalCommand)
@click.option("--profile", type=click.Choice(PROFILES), default="virtual", help="[virtual]")
@click.option("--out", type=click.Path(file_okay=False), default="out", metavar="DIR", help="[out]")
@click.option("--media", default="img,iso", metavar="LIST", help="Which media beside thimble.efi.  [img,iso]")
@click.option("--key", type=click.Path(), metavar="DIR", help="Sign with this key (`thimble image key`).")
@click.option(
    "--trust", multiple=True, type=click.Path(), metavar="CERT", help="Also accept updates signed with it."
)
@click.pass_obj
def build(
    session: CliSession, profile: str, out: str, media: str, key: str | None, trust: tuple[str, ...]
) -> None:
    """Build the image from Debian packages: all media, and the files for network boot."""
    builder = part("image.build")
    signer = part("image.signing").from_folder(Path(key)) if key else None
    options = builder.BuildOptions(
        profile=profile,
        out=Path(out),
        media=tuple(word for word in media.split(",") if word),
        signer=signer,
        trust=tuple(map(Path, trust)),
    )
    with reporting(session) as report:
        result = builder.build(options, report)
    for pin in result.replaced:
        session.note(f"WARNING: Debian no longer has a pinned version; using instead: {pin}")
    if session.json:
        click.echo(as_json({name: _plain(getattr(result, name)) for name in _fields(result)}))
    session.say(f"{result.efi}: kernel and RAM root take {result.total_bytes / 1e6:.1f} MB")


def _fields(value: Any) -> list[str]:
    return [name for name in dir(value) if not name.startswith("_") and not callable(getattr(value, name))]


def _plain(value: Any) -> object:
    return str(value) if isinstance(value, Path) else msgspec.to_builtins(value)


@image.command("inspect", cls=LocalCommand)
@click.argument("path", type=click.Path(), required=False)
@click.pass_obj
def inspect(session: CliSession, path: str | None) -> None:
    """What is in an image, and how large is each part? PATH is what `build` wrote.  [out/virtual]"""
    inspector = part("image.inspect")
    found = inspector.inspect(Path(path) if path else built())
    click.echo(as_json(found.document()) if session.json else "\n".join(inspector.lines(found)))


@image.command("write", cls=LocalCommand)
@click.argument("where", type=click.Path(dir_okay=False), metavar="DEVICE|FILE")
@click.option(
    "--image", "source", type=click.Path(), metavar="DIR|FILE", help="What to write.  [out/virtual]"
)
@click.option(
    "--document",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="A host document for the stick (thimble.toml).",
)
@click.option("--large", is_flag=True, help="Allow a disk larger than 256 GB.")
@click.option("--internal", is_flag=True, help="Allow an internal disk.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def write(session: CliSession, /, **given: Any) -> None:
    """Write the image to a USB stick, a card or a file, and verify it."""
    writer = part("image.write")
    forced = [name for name in ("large", "internal") if given[name]]
    document = Path(given["document"]) if given["document"] else None
    source = Path(given["source"]) if given["source"] else built()
    if document and document.is_file():
        part("document.read").read(document.read_bytes().decode(errors="replace"))
    planned = writer.plan(source, Path(given["where"]), document=document, allowed=forced)
    if not planned.target.is_new:
        confirm(session, f"Overwrite everything on {planned.target}?", yes=given["yes"])
    with reporting(session) as report:
        writer.write(planned, report)
    if session.json:
        click.echo(
            as_json({"target": str(planned.target.path), "bytes": planned.size, "sha256": planned.sha256})
        )
    session.say(f"{planned.target.path} holds {planned.image.name}; verified")


@image.command("key", cls=LocalCommand)
@click.argument("folder", type=click.Path(file_okay=False), metavar="DIR")
@click.option("--name", default="Thimble", metavar="NAME", help="Whose keys they are.  [Thimble]")
@click.option(
    "--also", multiple=True, type=click.Path(), metavar="CERT", help="Also accept programs signed with it."
)
@click.pass_obj
def key(session: CliSession, folder: str, name: str, also: tuple[str, ...]) -> None:
    """Create your own Secure Boot keys."""
    with reporting(session) as report:
        part("image.keys").make(Path(folder), report, name=name, also=tuple(map(Path, also)))
    session.say(f"{folder} holds your keys: keep it secret, and keep a copy of it")


@image.command("sign", cls=LocalCommand)
@click.argument("path", type=click.Path(file_okay=False), metavar="DIR", required=False)
@click.option(
    "--key", required=True, type=click.Path(), metavar="DIR|FILE", help="What `image key` made, or a key."
)
@click.option(
    "--cert", type=click.Path(dir_okay=False), metavar="FILE", help="The certificate, if KEY is a file."
)
@click.pass_obj
def sign(session: CliSession, path: str | None, key: str, cert: str | None) -> None:
    """Sign a built image, and remake its media. DIR is what `build` wrote.  [out/virtual]"""
    signing, signer = part("image.signing"), part("image.sign")
    folder = Path(path) if path else built()
    own = signing.from_files(Path(key), Path(cert)) if cert else signing.from_folder(Path(key))
    with reporting(session) as report:
        signer.sign(folder, own, report)
    if not signer.is_trusted(folder, own):
        session.note(
            "The image itself does not accept updates signed with this key: see `image build --key`."
        )
    session.say(f"{folder} is signed" + ("" if own.variables else "; the firmware must know the key already"))


def built() -> Path:
    """The image in the default place; the small one's when there are both or none."""
    places = [Path("out") / name for name in ("virtual", "server")]
    return next((place for place in places if (place / "manifest.json").exists()), places[0])


@image.command("lock", cls=LocalCommand)
@click.pass_obj
def lock(session: CliSession) -> None:
    """Pin the newest verified version of every package."""
    with reporting(session) as report:
        lines = part("image.lock").refresh(report)
    if session.json:
        click.echo(as_json({"changes": list(lines)}))
    session.say("\n".join(lines) or "all packages are up to date")
