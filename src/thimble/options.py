"""What the agent is told at its start: its command line, read without argparse (it costs boot time)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem

#: option → what it does, for the usage text
HELP = {
    "--state": "DIR    where what must last is kept",
    "--run": "DIR      where what may vanish at reboot is kept",
    "--listen": "[ADDRESS:]PORT   where the API is served",
    "--hosted": "yes|no      inside another operating system, or as Thimble's own",
    "--qemu-dir": "DIR where qemu-system-x86_64 and qemu-img are",
    "--share": "DIR    where OVMF and SeaBIOS are, instead of /usr/share",
    "--password-file": "FILE   admin's first password, or its scrypt$… hash",
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    state: Path
    run: Path
    host: str = ""  # "" is every address
    port: int = 8443
    hosted: bool = True
    qemu_dir: Path | None = None
    share: Path = Path("/usr/share")
    password_file: Path | None = None


def parse(argv: list[str]) -> Options:
    """Raises `Problem` INVALID, naming the options there are."""
    given: dict[str, str] = {}
    rest = list(argv)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in HELP or not (equals or rest):
            raise _usage(f"{name}: no such option, or its value is missing")
        given[name] = value if equals else rest.pop(0)
    host, _, port = given.get("--listen", "8443").rpartition(":")
    if not port.isdigit() or not 0 <= int(port) <= 65535:
        raise _usage(f"--listen {given['--listen']}: the port is a number from 0 to 65535")
    if given.get("--hosted", "yes") not in ("yes", "no"):
        raise _usage("--hosted: yes or no")
    return Options(
        state=Path(given.get("--state", "/var/lib/thimble")).absolute(),
        run=Path(given.get("--run", "/run/thimble")).absolute(),
        host=host.strip("[]"),
        port=int(port),
        hosted=given.get("--hosted", "yes") == "yes",
        qemu_dir=Path(given["--qemu-dir"]) if "--qemu-dir" in given else None,
        share=Path(given.get("--share", "/usr/share")),
        password_file=Path(given["--password-file"]) if "--password-file" in given else None,
    )


def _usage(what: str) -> Problem:
    return Problem(
        Code.INVALID, what, hint="options: " + "; ".join(f"{name} {text}" for name, text in HELP.items())
    )
