"""The private apt root: Debian's own solver, downloader and signature check, pointed at our suite and state.

It must never touch the machine's package state: every directory apt writes is below `<cache>/apt`. It keeps
the machine's apt.conf.d, because that is where a proxy is configured.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from thimble.image import cache, sources
from thimble.image.fault import fault
from thimble.image.locking import Pin
from thimble.image.progress import Report

FRESH_S = 6 * 3600
"""Package lists younger than this are not asked for again, unless a pinned version is missing from them."""

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""For apt-get itself: which programs its scripts (apt-key) call is the business of Debian's dependencies."""

KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/etc/apt/trusted.gpg.d/debian-archive-keyring.gpg",
)


def find_keyring(candidates: Iterable[str] = KEYRINGS) -> Path:
    """Debian's archive keyring on this machine."""
    for name in candidates:
        if Path(name).is_file():
            return Path(name)
    raise fault(
        "not-found",
        "Debian's archive keyring is not installed",
        hint="apt-get install debian-archive-keyring",
    )


def configured(etc: Path = Path("/etc/apt")) -> list[sources.AptSource]:
    """What this machine is configured to use."""
    found: list[sources.AptSource] = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.suffix == ".sources" and path.is_file():
            found += sources.parse_deb822(path.read_text())
        elif path.suffix == ".list" and path.is_file():
            found += sources.parse_lines(path.read_text())
    return found


class Apt:
    """One suite's private root below `home`."""

    def __init__(self, home: Path, *, suite: str, source_text: str | None = None) -> None:
        self.home = home
        self.suite = suite
        self._sources = home / "thimble.sources"
        self._given = source_text

    def prepare(self) -> None:
        """Make the directories and the sources; cheap, idempotent."""
        for name in ("lists/partial", "cache/archives/partial", "log", "empty.d"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        (self.home / "status").touch()
        text = self._given or sources.derive(configured(), suite=self.suite, keyring=str(find_keyring()))
        if not text:
            raise fault(
                "not-found",
                "no Debian archive in this machine's apt sources",
                hint="add a `deb` line for Debian main to /etc/apt/sources.list.d",
            )
        if not self._sources.exists() or self._sources.read_text() != text:
            cache.write(self._sources, text.encode())
            (self.home / "updated").unlink(missing_ok=True)

    def options(self) -> list[str]:
        home = self.home
        values = {
            "Dir::State": home,
            "Dir::State::lists": home / "lists",
            "Dir::State::status": home / "status",
            "Dir::State::extended_states": home / "extended_states",
            "Dir::Cache": home / "cache",
            "Dir::Log": home / "log",
            "Dir::Etc::sourcelist": self._sources,
            "Dir::Etc::sourceparts": home / "empty.d",
            "Dir::Etc::trustedparts": home / "empty.d",
            "Dir::Etc::trusted": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": home / "empty.d",
            "APT::Architecture": "amd64",
            "APT::Architectures::": "amd64",
            "APT::Default-Release": "",
            "APT::Install-Recommends": "false",
            "APT::Install-Suggests": "false",
            "APT::Get::AllowUnauthenticated": "false",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::AllowWeakRepositories": "false",
            "Acquire::ForceHash": "SHA256",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            # The sandbox user cannot reach a cache below a private home; signatures are checked either way.
            "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
        }
        return [word for name, value in values.items() for word in ("-o", f"{name}={value}")]

    def run(self, *args: str, cwd: Path | None = None, timeout: float = 1800) -> str:
        """Run apt-get or apt-cache; its output, or a problem that carries what apt said."""
        program, *rest = args
        argv = [shutil.which(program) or program, *self.options(), *rest]
        environment = {**os.environ, "PATH": PATH, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            said = tuple(line for line in done.stderr.splitlines() if line.startswith(("E:", "W:", "Err")))
            raise fault(
                "failed",
                f"apt could not {rest[0]}",
                hint="is the mirror reachable from this machine?",
                reasons=said[:12],
            )
        return done.stdout

    def update(self, report: Report, *, older_than_s: float = FRESH_S) -> None:
        """Fetch the package lists if those here are older than asked; apt checks their signatures."""
        self.prepare()
        with cache.locked(self.home / "lists"):
            stamp = self.home / "updated"
            if stamp.exists() and time.time() - stamp.stat().st_mtime < older_than_s:
                return
            report("packages", None, f"asking the mirror for Debian {self.suite}'s signed package lists")
            self.run("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
            stamp.touch()

    def resolve(self, names: Iterable[str]) -> list[Pin]:
        """The newest versions of `names` and of all they depend on, recommendations left out."""
        text = self.run("apt-get", "install", "-qq", "-y", "--print-uris", *sorted(names))
        pins = [_pin(line) for line in text.splitlines() if line.startswith("'")]
        return sorted(pins)

    def versions(self, names: Iterable[str]) -> dict[str, set[str]]:
        """Which versions of each package the lists offer."""
        offered: dict[str, set[str]] = {}
        for line in self.run("apt-cache", "madison", *sorted(names)).splitlines():
            name, version, _ = (field.strip() for field in line.split("|"))
            offered.setdefault(name, set()).add(version)
        return offered

    def download(self, pins: Iterable[Pin], into: Path) -> None:
        """Fetch exactly these versions; apt verifies signature → Packages → SHA-256 of each."""
        with tempfile.TemporaryDirectory(prefix=".download.", dir=self.home) as scratch:
            wanted = [f"{pin.name}={pin.version}" for pin in pins]
            self.run("apt-get", "download", "-q", *wanted, cwd=Path(scratch))
            admit(Path(scratch), {pin.sha256 for pin in pins}, into)


def admit(scratch: Path, expected: set[str], into: Path) -> None:
    """Move downloaded packages into the cache by their SHA-256; refuse a file nobody pinned."""
    into.mkdir(parents=True, exist_ok=True)
    for path in sorted(scratch.glob("*.deb")):
        digest = cache.sha256(path)
        if digest not in expected:
            raise fault(
                "invalid",
                f"{path.name} is not the pinned package",
                hint="the mirror serves a different file: pin anew with `thimble image lock`",
                reasons=(f"its SHA-256 is {digest}",),
            )
        path.chmod(0o644)
        path.rename(into / f"{digest}.deb")


def _pin(line: str) -> Pin:
    match = re.match(r"'[^']*' (\S+)_(\S+)_(\S+)\.deb \d+ SHA256:([0-9a-f]{64})", line)
    if not match:
        raise fault("failed", "apt gave no SHA-256 for a package", reasons=(line,))
    return Pin(name=match[1], version=match[2].replace("%3a", ":"), architecture=match[3], sha256=match[4])
