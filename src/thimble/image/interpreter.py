"""Python in the image: trimmed standard library, the agent's libraries, Thimble itself, all compiled ahead.

The image's own interpreter compiles (it runs from the toolbox or the same package), every .pyc is of the
unchecked kind, no source and no path of the building machine goes in. Without this, the first import would
cost eight CPU seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

from thimble.image import cache
from thimble.image.fault import fault
from thimble.image.layout import Component, ImageEntry, Place
from thimble.image.packages import PackageSet
from thimble.image.progress import Report
from thimble.image.toolbox import Toolbox

LIBRARY = "lib/python3.13"
HOME = "py"
"""The interpreter's prefix in the RAM root; the prefix "/" itself is one Python never looks at."""

STANDARD = ("libpython3.13-minimal", "libpython3.13-stdlib")

_COMPILE = """
import json, py_compile, sys
for source, target, shown, level in json.load(sys.stdin):
    py_compile.compile(source, target, shown, doraise=True, optimize=level,
                       invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One file below lib/python3.13, before compiling."""

    path: str
    source: Path
    component: Component
    package: str
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonChoice:
    """data/python.toml."""

    drop: tuple[str, ...]
    encodings: frozenset[str]
    late: tuple[str, ...]
    library_drop: tuple[str, ...]
    project_drop: tuple[str, ...]


def choice() -> PythonChoice:
    raw = tomllib.loads(resources.files("thimble.image").joinpath("data/python.toml").read_text())
    return PythonChoice(
        drop=tuple(raw["drop"]),
        encodings=frozenset(raw["encodings"]),
        late=tuple(raw["late"]),
        library_drop=tuple(raw["library_drop"]),
        project_drop=tuple(raw["project_drop"]),
    )


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name != "__pycache__")
        for name in sorted(files):
            yield str(Path(folder, name).relative_to(root)), Path(folder, name)


def standard(found: PackageSet, chosen: PythonChoice) -> list[Module]:
    """The part of the standard library that the image has."""
    modules = []
    for package in STANDARD:
        for path, source in _files(found.trees[package] / "data/usr" / LIBRARY):
            if _matches(path, chosen.drop) or not path.endswith((".py", ".so")):
                continue
            if path.startswith("encodings/") and Path(path).stem not in chosen.encodings:
                continue
            modules.append(
                Module(
                    path=path,
                    source=source.resolve(),
                    component=Component.PYTHON,
                    package=package,
                    late=_matches(path, chosen.late),
                )
            )
    return modules


def project(source: Path, chosen: PythonChoice) -> list[Module]:
    """Thimble itself: compiled code and the data files beside it."""
    return [
        Module(path=path, source=file, component=Component.THIMBLE, package="thimble")
        for path, file in _files(source)
        if path.startswith("thimble/") and not _matches(path, chosen.project_drop)
    ]


def wheels(box: Toolbox, requirements: Path, report: Report) -> Path:
    """The directory with the agent's libraries for the image's Python, checked against their hashes."""

    def make(into: Path) -> None:
        report("libraries", None, "fetching the agent's Python libraries")
        argv = [
            *box.argv("python3.13", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            "--dest",
            str(into),
            "--require-hashes",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--python-version",
            "3.13",
            "--implementation",
            "cp",
            *[
                word
                for tag in ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_28_x86_64")
                for word in ("--platform", tag)
            ],
            "--requirement",
            str(requirements),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode != 0:
            raise fault(
                "failed",
                "pip could not fetch the agent's libraries",
                hint="is a package index reachable from this machine?",
                reasons=tuple(done.stderr.strip().splitlines()[-6:]),
            )

    return cache.directory(cache.root() / "stages" / f"wheels-{cache.key(cache.sha256(requirements))}", make)


def unpacked(folder: Path) -> Path:
    """The wheels of `folder`, each unpacked below its own name."""

    def make(into: Path) -> None:
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(into / wheel.name)

    return cache.directory(folder.parent / f"{folder.name}-unpacked", make)


def libraries(folder: Path, chosen: PythonChoice) -> list[Module]:
    """The files of the unpacked wheels that the image has."""
    modules = []
    for wheel in sorted(unpacked(folder).iterdir()):
        name = "-".join(wheel.name.split("-")[:2])
        for path, source in _files(wheel):
            if not _matches(path, chosen.library_drop) and path.endswith((".py", ".so")):
                modules.append(
                    Module(
                        path=path,
                        source=source,
                        component=Component.PYTHON,
                        package=f"pypi:{name}",
                        late=_matches(path, chosen.late),
                    )
                )
    return modules


def compiled(box: Toolbox, modules: list[Module], report: Report) -> list[ImageEntry]:
    """Entries of all modules, sources replaced by what the image's Python makes of them."""
    inputs = [[_folder(module), module.path, _digest(module)] for module in modules]
    stage = cache.root() / "stages" / f"python-{cache.key('python', 4, box.versions['python3.13'], inputs)}"

    def make(into: Path) -> None:
        report("python", None, f"compiling {len(modules)} modules")
        jobs = []
        for module in modules:
            if module.path.endswith(".py"):
                target = into / f"{module.path}c"
                target.parent.mkdir(parents=True, exist_ok=True)
                # The contract's docstrings are the API's documentation; all others would only cost memory.
                level = 1 if module.path.startswith("thimble/contract/") else 2
                jobs.append([str(module.source), str(target), f"/{_folder(module)}/{module.path}", level])
        box.python(_COMPILE, stdin=json.dumps(jobs))

    cache.directory(stage, make)
    return [_entry(module, stage) for module in modules]


def _folder(module: Module) -> str:
    return f"usr/{LIBRARY}" if module.late else f"{HOME}/{LIBRARY}"


def _digest(module: Module) -> str:
    return cache.sha256(module.source)


def _entry(module: Module, stage: Path) -> ImageEntry:
    is_code = module.path.endswith(".py")
    path = module.path + ("c" if is_code else "")
    return ImageEntry(
        place=Place.ROOT if module.late else Place.EARLY,
        path=f"{LIBRARY}/{path}" if module.late else f"{HOME}/{LIBRARY}/{path}",
        component=module.component,
        package=module.package,
        source=stage / f"{module.path}c" if is_code else module.source,
    )
