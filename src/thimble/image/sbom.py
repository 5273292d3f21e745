"""The software bill of materials: SPDX 2.3 as JSON, with the licences that Debian's copyright files declare.

Debian's short names are turned into SPDX's where both mean the same; every other one becomes a LicenseRef
that says where its text is. A package without a machine-readable copyright file gets NOASSERTION, never a
guess.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from thimble import __version__
from thimble.image.packages import PackageSet

NO_ASSERTION = "NOASSERTION"

_SAME = {
    "apache-2.0": "Apache-2.0",
    "artistic": "Artistic-1.0-Perl",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
    "bsl-1.0": "BSL-1.0",
    "cc0-1.0": "CC0-1.0",
    "expat": "MIT",
    "gpl-1+": "GPL-1.0-or-later",
    "gpl-2": "GPL-2.0-only",
    "gpl-2.0": "GPL-2.0-only",
    "gpl-2.0-only": "GPL-2.0-only",
    "gpl-2+": "GPL-2.0-or-later",
    "gpl-2.0+": "GPL-2.0-or-later",
    "gpl-3": "GPL-3.0-only",
    "gpl-3+": "GPL-3.0-or-later",
    "gpl-3.0+": "GPL-3.0-or-later",
    "isc": "ISC",
    "lgpl-2": "LGPL-2.0-only",
    "lgpl-2+": "LGPL-2.0-or-later",
    "lgpl-2.0+": "LGPL-2.0-or-later",
    "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-2.1+": "LGPL-2.1-or-later",
    "lgpl-3": "LGPL-3.0-only",
    "lgpl-3+": "LGPL-3.0-or-later",
    "mit": "MIT",
    "mpl-1.1": "MPL-1.1",
    "mpl-2.0": "MPL-2.0",
    "ofl-1.1": "OFL-1.1",
    "openssl": "OpenSSL",
    "python": "PSF-2.0",
    "psf-2": "PSF-2.0",
    "unicode": "Unicode-DFS-2016",
    "zlib": "Zlib",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One package of the bill."""

    name: str
    version: str
    licence: str
    sha256: str = ""
    supplier: str = "Organization: Debian"
    purl: str = ""


def licences(copyright_text: str) -> tuple[str, ...]:
    """The short names after `License:` of a machine-readable copyright file; empty if it is not one."""
    if not re.match(r"\s*Format(-Specification)?:", copyright_text):
        return ()
    found: list[str] = []
    for match in re.finditer(r"^License:[ \t]*(\S.*)$", copyright_text, re.MULTILINE):
        for name in re.split(r"\s+(?:and/or|and|or)\s+|,\s*|\s+\|\s+", match[1].strip(), flags=re.IGNORECASE):
            plain = name.strip(" ()")
            if plain and plain not in found:
                found.append(plain)
    return tuple(found)


def expression(names: Iterable[str]) -> str:
    """An SPDX expression saying that all of these apply to some part of the package."""
    terms: list[str] = []
    for name in names:
        base, _, exception = re.sub(r"\s+", " ", name).partition(" with ")
        term = _SAME.get(base.lower(), "") if not exception else ""
        term = term or "LicenseRef-Debian-" + re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-")
        if term not in terms:
            terms.append(term)
    return " AND ".join(terms) or NO_ASSERTION


def _copyright(found: PackageSet, package: str) -> str:
    """A package's copyright file, also where its documentation is a link into another package's."""
    for tree in (found.trees[package], *found.trees.values()):
        path = tree / "data/usr/share/doc" / package / "copyright"
        if path.is_file():
            return path.read_text(errors="replace")
    link = found.trees[package] / "data/usr/share/doc" / package
    if link.is_symlink() and link.readlink().name in found.trees and link.readlink().name != package:
        return _copyright(found, link.readlink().name)
    return ""


def describe(found: PackageSet, names: Iterable[str]) -> dict[str, Part]:
    """Every named package with version and licence; "pypi:NAME-VERSION" is a library, "thimble" is ours."""
    pins = {pin.name: pin for pin in found.pins}
    parts = {}
    for name in sorted(names):
        if name == "thimble":
            parts[name] = Part(
                name=name, version=__version__, licence="Apache-2.0", supplier="Organization: Thimble"
            )
        elif name.startswith("pypi:"):
            parts[name] = _library(name)
        else:
            pin = pins[name]
            parts[name] = Part(
                name=name,
                version=pin.version,
                licence=expression(licences(_copyright(found, name))),
                sha256=pin.sha256,
                purl=f"pkg:deb/debian/{name}@{pin.version}?arch={pin.architecture}",
            )
    return parts


def _library(name: str) -> Part:
    plain, _, version = name.removeprefix("pypi:").rpartition("-")
    known = {
        "msgspec": "BSD-3-Clause",
        "h11": "MIT",
        "websockets": "BSD-3-Clause",
        "qemu.qmp": "LGPL-2.0-or-later AND GPL-2.0-only",
    }
    return Part(
        name=plain,
        version=version,
        licence=known.get(plain.replace("_", "."), NO_ASSERTION),
        supplier=NO_ASSERTION,
        purl=f"pkg:pypi/{plain}@{version}",
    )


def document(parts: dict[str, Part], profile: str, epoch: int) -> dict[str, object]:
    """The SPDX document; its date is the lock's, its name space follows from its contents."""
    listed = [_package(part) for part in parts.values()]
    digest = hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    refs = sorted(
        {term for part in parts.values() for term in part.licence.split() if term.startswith("LicenseRef-")}
    )
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"thimble-{profile}-{__version__}",
        "documentNamespace": f"urn:thimble:spdx:{digest}",
        "creationInfo": {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
            "creators": [f"Tool: thimble-{__version__}"],
        },
        "documentDescribes": [package["SPDXID"] for package in listed],
        "packages": listed,
        "hasExtractedLicensingInfos": [
            {
                "licenseId": ref,
                "name": ref.removeprefix("LicenseRef-Debian-"),
                "extractedText": "See /usr/share/doc/PACKAGE/copyright of the Debian packages that name it.",
            }
            for ref in refs
        ],
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": package["SPDXID"],
            }
            for package in listed
        ],
    }


def _package(part: Part) -> dict[str, object]:
    package: dict[str, object] = {
        "SPDXID": "SPDXRef-Package-" + re.sub(r"[^A-Za-z0-9.-]+", "-", part.name),
        "name": part.name,
        "versionInfo": part.version,
        "supplier": part.supplier,
        "downloadLocation": NO_ASSERTION,
        "filesAnalyzed": False,
        "licenseConcluded": NO_ASSERTION,
        "licenseDeclared": part.licence,
        "copyrightText": NO_ASSERTION,
    }
    if part.sha256:
        package["checksums"] = [{"algorithm": "SHA256", "checksumValue": part.sha256}]
    if part.purl:
        package["externalRefs"] = [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": part.purl}
        ]
    return package
