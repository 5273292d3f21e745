"""The toolbox: Debian 13's own tools in a directory of the cache, run natively on whatever Linux this is.

    <cache>/toolbox/<key>/          the tree (usr-merged), made of hard links to the extracted packages
    <cache>/toolbox/bin/<program>   wrappers for PATH; they point at the tree made last

A program of the tree runs through the tree's own dynamic linker with the tree's own libraries, so that no
chroot is needed, host paths work, and the result does not depend on the machine's Debian version. The
tree's environment never leaks into other programs: everything is on the command line or in the wrapper.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from thimble.image import cache, packages
from thimble.image.fault import fault
from thimble.image.progress import Report, silent

LINKER = "usr/lib64/ld-linux-x86-64.so.2"
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib/x86_64-linux-gnu/systemd")
DATA = ("usr/share/qemu", "usr/share/seabios", "usr/share/OVMF", "usr/lib/ipxe")
SEARCH = ("usr/bin", "usr/sbin", "usr/lib/systemd")
MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}

WRAPPED = (
    "qemu-system-x86_64",
    "qemu-img",
    "qemu-io",
    "qemu-nbd",
    "qemu-storage-daemon",
    "mkfs.ext4",
    "mke2fs",
    "e2fsck",
    "resize2fs",
    "debugfs",
    "mkfs.vfat",
    "mkfs.erofs",
    "mksquashfs",
    "zstd",
    "xz",
    "sfdisk",
    "mcopy",
    "mformat",
    "mmd",
    "mdir",
    "mdel",
    "mtype",
    "minfo",
    "xorriso",
    "grub-mkimage",
    "grub-editenv",
    "sbsign",
    "sbverify",
    "sbsiglist",
    "sbvarsign",
    "openssl",
    "depmod",
    "objcopy",
    "ukify",
    "python3.13",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """A ready tree."""

    tree: Path
    versions: dict[str, str]
    replaced: tuple[str, ...] = ()

    def path(self, inside: str) -> Path:
        """A file of the tree, for example "usr/share/OVMF/OVMF_CODE_4M.fd"."""
        return self.tree / inside

    @property
    def wrappers(self) -> Path:
        """The one directory other code needs on its PATH."""
        return self.tree.parent / "bin"

    @property
    def environment(self) -> dict[str, str]:
        """What the tree's programs need in their environment beside the machine's own."""
        return {"QEMU_MODULE_DIR": str(self.path("usr/lib/x86_64-linux-gnu/qemu")), "LC_ALL": "C.UTF-8"}

    def find(self, program: str) -> Path:
        """Where the tree has this program."""
        for folder in SEARCH:
            found = self.tree / folder / program
            if found.is_file():
                return found
        raise fault("not-found", f"the toolbox has no program called {program}")

    def argv(self, *args: str) -> list[str]:
        """The argument vector that runs a tree's program natively: argv("qemu-img", "info", "x.qcow2")."""
        program = self.find(args[0])
        words = [
            str(self.tree / LINKER),
            "--library-path",
            ":".join(str(self.tree / name) for name in LIBRARIES),
        ]
        with program.open("rb") as handle:
            head = handle.read(128)
        if not head.startswith(b"\x7fELF"):
            if b"python3" not in head.split(b"\n", 1)[0]:
                raise fault(
                    "invalid", f"{args[0]} is neither a program nor a Python script: it would need a chroot"
                )
            words += [str(self.tree / "usr/bin/python3.13"), "-I"]
        words.append(str(program))
        if program.name.startswith("qemu-system-"):
            words += [word for name in DATA for word in ("-L", str(self.tree / name))]
        return [*words, *args[1:]]

    def python(self, script: str, *args: str, stdin: str = "") -> None:
        """Run a script with the image's Python so that the same input gives the same bytes.

        The order of a frozenset in compiled code follows the hash seed: it is fixed (`-I` would ignore it).
        """
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        argv = self.argv("python3.13", "-s", "-S", "-B", "-P", "-c", script, *args)
        subprocess.run(argv, input=stdin, text=True, env={**clean, "PYTHONHASHSEED": "0"}, check=True)


def ensure(report: Report = silent) -> Toolbox:
    """The toolbox, made if it is not there yet."""
    found = packages.ensure("toolbox", report)
    home = cache.root() / "toolbox"
    name = cache.key("toolbox", 2, [pin.sha256 for pin in found.pins])
    tree = home / name

    def make(into: Path) -> None:
        report("toolbox", None, f"laying out {len(found.pins)} packages")
        merge((root / "data" for root in found.trees.values()), into)

    cache.directory(tree, make)
    box = Toolbox(tree=tree, versions={pin.name: pin.version for pin in found.pins}, replaced=found.replaced)
    write_wrappers(box)
    return box


def merge(trees: Iterable[Path], into: Path) -> None:
    """Lay package trees over each other as hard links, with /bin, /lib … leading into /usr."""
    for name, target in MERGED.items():
        (into / target).mkdir(parents=True, exist_ok=True)
        (into / name).symlink_to(target)
    for tree in trees:
        for folder, names, files in os.walk(tree):
            below = into / Path(folder).relative_to(tree)
            for name in list(names):
                source = Path(folder, name)
                if source.is_symlink():
                    names.remove(name)
                    files.append(name)
            below.mkdir(parents=True, exist_ok=True)
            for name in files:
                _place(Path(folder, name), below / name)


def _place(source: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        return
    target.unlink(missing_ok=True) if not _is_merged(target) else None
    if source.is_symlink():
        if not target.is_symlink():
            target.symlink_to(source.readlink())
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _is_merged(target: Path) -> bool:
    return target.is_symlink() and target.name in MERGED and not target.readlink().is_absolute()


def write_wrappers(box: Toolbox) -> None:
    """What stands for the tree's programs on a PATH, in `box.wrappers`."""
    for program in WRAPPED:
        words = " \\\n  ".join(_quoted(word) for word in box.argv(program))
        setting = " ".join(f"{name}={_quoted(value)}" for name, value in box.environment.items())
        text = f'#!/bin/sh\nexec env {setting} \\\n  {words} "$@"\n'
        path = box.wrappers / program
        if not path.exists() or path.read_text() != text:
            cache.write(path, text.encode())
            path.chmod(0o755)


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"
