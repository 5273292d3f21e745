"""`thimble image …`: build and inspect the file that boots. Here, not on a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from thimble.cli.builder import part, reporting
from thimble.cli.command import Local
from thimble.cli.session import Session
from thimble.cli.show import as_json

PROFILES = ("server", "virtual")


@click.group(help="Build and inspect the bootable image, on this machine.")
def image() -> None:
    """The group."""


@image.command("build", cls=Local)
@click.option("--profile", type=click.Choice(PROFILES), default="virtual", help="[virtual]")
@click.option("--out", type=click.Path(file_okay=False), default="out", metavar="DIR", help="[out]")
@click.option("--media", default="img,iso", metavar="LIST", help="Which media beside thimble.efi.  [img,iso]")
@click.option("--key", type=click.Path(), metavar="DIR", help="Sign with this key (`thimble image key`).")
@click.option("--trust", multiple=True, type=click.Path(), metavar="CERT", help="Accept its updates, too.")
@click.pass_obj
def build(
    session: Session, profile: str, out: str, media: str, key: str | None, trust: tuple[str, ...]
) -> None:
    """Build the image from Debian's packages: all media, and the same for network boot."""
    builder = part("image.build")
    signer = part("image.signing").from_folder(Path(key)) if key else None
    options = builder.Options(
        profile=profile,
        out=Path(out),
        media=tuple(word for word in media.split(",") if word),
        signer=signer,
        trust=tuple(map(Path, trust)),
    )
    with reporting(session) as report:
        result = builder.build(options, report)
    for pin in result.replaced:
        session.note(f"WARNING: Debian no longer has a pinned version; taken instead: {pin}")
    if session.json:
        click.echo(as_json({name: _plain(getattr(result, name)) for name in _fields(result)}))
    session.say(f"{result.efi}: kernel and RAM root take {result.total_bytes / 1e6:.1f} MB")


def _fields(value: Any) -> list[str]:
    return [name for name in dir(value) if not name.startswith("_") and not callable(getattr(value, name))]


def _plain(value: Any) -> object:
    return str(value) if isinstance(value, Path) else msgspec.to_builtins(value)


@image.command("inspect", cls=Local)
@click.argument("path", type=click.Path(), required=False)
@click.pass_obj
def inspect(session: Session, path: str | None) -> None:
    """What is in an image, and how large is each part? PATH is what `build` wrote.  [out/virtual]"""
    inspector = part("image.inspect")
    found = inspector.inspect(Path(path) if path else built())
    click.echo(as_json(found.document()) if session.json else "\n".join(inspector.lines(found)))


def built() -> Path:
    """The image in the default place; the small one's when there are both or none."""
    places = [Path("out") / name for name in ("virtual", "server")]
    return next((place for place in places if (place / "manifest.json").exists()), places[0])


@image.command("lock", cls=Local)
@click.pass_obj
def lock(session: Session) -> None:
    """Pin the newest verified versions of every package."""
    with reporting(session) as report:
        lines = part("image.lock").refresh(report)
    if session.json:
        click.echo(as_json({"changes": list(lines)}))
    session.say("\n".join(lines) or "everything is the newest already")
