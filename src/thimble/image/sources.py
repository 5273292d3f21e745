"""From the machine's own package sources to those of the private root; pure.

The mirror is the one this machine already uses for Debian, whatever its address; only the suite is
replaced. Every stanza demands Debian's archive keyring: whatever a mirror (or a foreign repository that
slipped through) serves, nothing is taken that Debian has not signed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

RELEASES = frozenset(
    {"oldstable", "stable", "testing", "unstable", "sid", "bullseye", "bookworm", "trixie", "forky", "duke"}
)
COMPONENTS = ("main", "non-free-firmware")


@dataclass(frozen=True, slots=True, kw_only=True)
class AptSource:
    """One configured source: addresses, suites, components, and who signs it."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def parse_deb822(text: str) -> list[AptSource]:
    """The enabled `deb` stanzas of a .sources file."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and name:
                fields[name] += " " + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if (
            fields.get("enabled", "yes").lower() in {"no", "false", "0"}
            or "deb" not in fields.get("types", "").split()
        ):
            continue
        found.append(
            AptSource(
                uris=tuple(fields.get("uris", "").split()),
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
                signed_by=fields.get("signed-by", ""),
            )
        )
    return found


def parse_lines(text: str) -> list[AptSource]:
    """The `deb` lines of a .list file."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if not match:
            continue
        options = dict(option.split("=", 1) for option in (match[1] or "").split() if "=" in option)
        found.append(
            AptSource(
                uris=(match[2],),
                suites=(match[3],),
                components=tuple(match[4].split()),
                signed_by=options.get("signed-by", ""),
            )
        )
    return found


def _is_debian(source: AptSource, suite: str) -> bool:
    """Is this one of Debian's own archives? Others borrow the suite names, not keyring and component."""
    base = re.sub(r"(-security|-updates|/updates)$", "", suite)
    signer = source.signed_by.rsplit("/", 1)[-1]
    return (
        base in RELEASES
        and "main" in source.components
        and (not signer or signer.startswith("debian-archive"))
    )


def derive(sources: Iterable[AptSource], *, suite: str, keyring: str) -> str:
    """The private root's sources: `suite`, its updates and security archive; "" if no mirror is known."""
    archive: list[str] = []
    security: list[str] = []
    for source in sources:
        uris = [uri for uri in source.uris if not uri.startswith("cdrom:")]
        for name in source.suites:
            if not _is_debian(source, name):
                continue
            into = security if name.endswith(("-security", "/updates")) else archive
            into.extend(uri for uri in uris if uri not in into)
    stanzas = [(archive, f"{suite} {suite}-updates"), (security, f"{suite}-security")]
    return "\n".join(
        f"Types: deb\nURIs: {' '.join(uris)}\nSuites: {suites}\nComponents: {' '.join(COMPONENTS)}\n"
        f"Architectures: amd64\nSigned-By: {keyring}\n"
        for uris, suites in stanzas
        if uris and archive
    )
