"""`thimble image inspect`: the footprint, from the manifest beside the image, checked against the files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thimble.image import cache, manifest
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
class FileReport:
    """One file of the image. `used_bytes` is less than `bytes` where it is sparse."""

    name: str
    bytes: int
    used_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """The footprint. `total_bytes` is without the makers' blobs, `file_bytes` is all of thimble.efi."""

    profile: str
    version: str
    kernel: str
    total_bytes: int
    blob_bytes: int
    file_bytes: int
    ram_bytes: int
    components: tuple[ComponentReport, ...]
    files: tuple[FileReport, ...]
    replaced: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """The same for JSON."""
        return asdict(self)


def inspect(path: Path) -> ImageReport:
    """The report on an image: its directory, or its thimble.efi, vmlinuz or initrd."""
    folder = path if path.is_dir() else path.parent
    raw = manifest.read(folder)
    for name, known in raw["files"].items():
        file = folder / name
        if not file.is_file() or cache.sha256(file) != known["sha256"]:
            raise fault("conflict", f"{file} is not the file that was built", hint="build the image again")
    components = tuple(_component(entry) for entry in raw["components"])
    return ImageReport(
        profile=raw["profile"],
        version=raw["version"],
        kernel=raw["kernel"],
        total_bytes=raw["total_bytes"],
        blob_bytes=raw["blob_bytes"],
        file_bytes=raw["files"]["thimble.efi"]["bytes"],
        ram_bytes=sum(component.ram_bytes for component in components),
        components=components,
        files=tuple(_file(name, entry) for name, entry in sorted(raw["files"].items())),
        replaced=tuple(raw["replaced"]),
    )


def _component(entry: dict[str, object]) -> ComponentReport:
    packages = entry.pop("packages")
    assert isinstance(packages, list)
    return ComponentReport(**entry, packages=tuple(PackageReport(**package) for package in packages))  # type: ignore[arg-type]


def _file(name: str, entry: dict[str, Any]) -> FileReport:
    size = entry["bytes"]
    return FileReport(name=name, bytes=size, used_bytes=entry.get("used_bytes", size), sha256=entry["sha256"])


def lines(report: ImageReport) -> list[str]:
    """The report as text."""
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
    out.append("")
    for file in report.files:
        sparse = "" if file.used_bytes > 0.9 * file.bytes else f"  ({_mega(file.used_bytes)} of it used)"
        out.append(f"{file.name:<12}{_mega(file.bytes):>14}{sparse}")
    out += [f"not as pinned: {line}" for line in report.replaced]
    return out


def _mega(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
