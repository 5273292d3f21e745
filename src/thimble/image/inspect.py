"""`thimble image inspect`: the footprint, from the manifest beside the image, checked against the files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from thimble.image import cache
from thimble.image.fault import fault


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageReport:
    """One package of a component."""

    name: str
    version: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentReport:
    """One component's bytes in the file and in RAM; `counted` ones make up the total."""

    name: str
    compressed_bytes: int
    ram_bytes: int
    counted: bool
    packages: tuple[PackageReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The honest answer. `total_bytes` is without the makers' blobs, `file_bytes` is all of thimble.efi."""

    profile: str
    version: str
    kernel: str
    total_bytes: int
    blob_bytes: int
    file_bytes: int
    ram_bytes: int
    components: tuple[ComponentReport, ...]
    replaced: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """The same for JSON."""
        return asdict(self)


def inspect(path: Path) -> Report:
    """The report on an image: its directory, or its thimble.efi, vmlinuz or initrd."""
    folder = path if path.is_dir() else path.parent
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise fault(
            "not-found",
            f"{folder} has no manifest.json",
            hint="give the directory `thimble image build` wrote",
        )
    raw = json.loads(manifest.read_text())
    if raw.get("format") != 1:
        raise fault(
            "unsupported", f"{manifest} has a format this version does not know", hint="build the image again"
        )
    for name, known in raw["files"].items():
        file = folder / name
        if not file.is_file() or cache.sha256(file) != known["sha256"]:
            raise fault("conflict", f"{file} is not the file that was built", hint="build the image again")
    components = tuple(_component(entry) for entry in raw["components"])
    return Report(
        profile=raw["profile"],
        version=raw["version"],
        kernel=raw["kernel"],
        total_bytes=raw["total_bytes"],
        blob_bytes=raw["blob_bytes"],
        file_bytes=raw["files"]["thimble.efi"]["bytes"],
        ram_bytes=sum(component.ram_bytes for component in components),
        components=components,
        replaced=tuple(raw["replaced"]),
    )


def _component(entry: dict[str, object]) -> ComponentReport:
    packages = entry.pop("packages")
    assert isinstance(packages, list)
    return ComponentReport(**entry, packages=tuple(PackageReport(**package) for package in packages))  # type: ignore[arg-type]


def lines(report: Report) -> list[str]:
    """The report for people."""
    out = [f"Thimble {report.version}, profile {report.profile}, Linux {report.kernel}", ""]
    out.append(f"{'component':<12}{'in the file':>14}{'in RAM':>14}  packages")
    for component in report.components:
        mark = "" if component.counted else "  (apart)"
        out.append(
            f"{component.name:<12}{_mega(component.compressed_bytes):>14}{_mega(component.ram_bytes):>14}"
            f"  {len(component.packages)}{mark}"
        )
    out.append(f"{'total':<12}{_mega(report.total_bytes):>14}{_mega(report.ram_bytes):>14}")
    out.append(f"{'blobs apart':<12}{_mega(report.blob_bytes):>14}")
    out.append(f"{'thimble.efi':<12}{_mega(report.file_bytes):>14}")
    out += [f"not as pinned: {line}" for line in report.replaced]
    return out


def _mega(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
