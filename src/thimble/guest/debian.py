"""The demonstration guest: a real Debian 13 that answers SSH soon after power-on; and others made like it.

    <cache>/guests/<name>-<key>/    disk.qcow2   ext4 labelled thimble-guest, 1 GiB, no partition table
                                    vmlinuz, initrd

It boots by direct kernel boot from any virtio or NVMe disk; what it accepts as first-boot data is in
`overlay`. Invariant: the same lock and the same recipe give the same files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from thimble.guest import initrd, overlay, packages, rootfs
from thimble.guest.overlay import Overlay
from thimble.guest.parts import Parts
from thimble.image import cache, cpio, toolbox
from thimble.image.locking import Lock
from thimble.image.progress import Report, silent
from thimble.image.toolbox import Toolbox

RECIPE = 3
SIZE = "1G"
UUID = "7a1b1e00-0000-4000-8000-000000000001"
# lsm=: without `bpf`, PID 1 does not load its BPF programs (a twentieth of the whole boot under TCG).
CMDLINE = (
    "console=ttyS0 quiet rw net.ifnames=0 audit=0 systemd.show_status=0 lsm=landlock,lockdown,yama,integrity"
)


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A guest: the packages' sets beyond `base`, and what is laid over them."""

    name: str
    sets: tuple[str, ...]
    laid: Overlay


DEMONSTRATION = Recipe(name="debian", sets=("debian",), laid=overlay.DEBIAN)


class DebianGuest(msgspec.Struct, frozen=True, kw_only=True):
    disk: Path
    kernel: Path
    initrd: Path | None
    cmdline: str = CMDLINE


def ensure(report: Report = silent, recipe: Recipe = DEMONSTRATION) -> DebianGuest:
    """The guest's files in the cache, made if missing (about a minute; root)."""
    sets = ("base", "parts", *recipe.sets)
    lock = packages.ensure(report, sets)
    pins = sorted(pin.sha256 for name in sets for pin in lock.named(name))
    laid = recipe.laid
    texts = [rootfs.DPKG_SETTINGS, laid.files, laid.links, laid.removed, initrd.DEBIAN_INIT]
    key = cache.key(recipe.name, RECIPE, pins, texts)
    home = cache.directory(
        cache.root() / "guests" / f"{recipe.name}-{key[:16]}",
        lambda into: _make(into, lock, recipe, toolbox.ensure(report), report),
    )
    return DebianGuest(disk=home / "disk.qcow2", kernel=home / "vmlinuz", initrd=home / "initrd")


def _make(into: Path, lock: Lock, recipe: Recipe, box: Toolbox, report: Report) -> None:
    parts = Parts(lock)
    modules = {module: parts.module(module) for module in initrd.DEBIAN_MODULES}
    (into / "initrd").write_bytes(cpio.archive(initrd.debian(parts.busybox, modules)))
    (into / "vmlinuz").write_bytes(parts.kernel.read_bytes())
    with tempfile.TemporaryDirectory(prefix=".tree.", dir=into) as scratch:
        tree = Path(scratch, "root")
        tree.mkdir()
        rootfs.make(tree, lock, recipe.sets, recipe.laid, report)
        _install_modules(tree, parts, box)
        _settle_times(tree, lock.epoch)
        report("guest", 0.9, "writing the guest's disk")
        raw = Path(scratch, "disk.raw")
        _file_system(tree, raw, lock.epoch, box)
        _run(
            box,
            "qemu-img",
            "convert",
            "-O",
            "qcow2",
            "-c",
            "-o",
            "compression_type=zstd",
            str(raw),
            str(into / "disk.qcow2"),
        )


def _install_modules(tree: Path, parts: Parts, box: Toolbox) -> None:
    target = tree / "usr/lib/modules" / parts.release
    shutil.copytree(parts.modules, target)
    _run(box, "depmod", "--basedir", str(tree), parts.release)


def _settle_times(tree: Path, epoch: int) -> None:
    """Nothing younger than the lock; and the marks that spare the first boot systemd's update services."""
    for name in ("etc", "var"):
        (tree / name / ".updated").write_text("")
    (tree / "etc/machine-id").write_text("")
    for folder, names, files in os.walk(tree):
        for name in (*names, *files):
            path = Path(folder, name)
            if path.lstat().st_mtime > epoch:
                os.utime(path, (epoch, epoch), follow_symlinks=False)
    os.utime(tree, (epoch, epoch))
    for name in ("usr", "etc/.updated", "var/.updated"):
        os.utime(tree / name, (epoch, epoch))


def _file_system(tree: Path, raw: Path, epoch: int, box: Toolbox) -> None:
    with raw.open("wb") as handle:
        handle.truncate(1 << 30)
    _run(
        box,
        "mke2fs",
        "-q",
        *("-t", "ext4"),
        *("-L", initrd.LABEL),
        *("-U", UUID),
        *("-E", f"hash_seed={UUID},root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1"),
        *("-J", "size=8"),
        *("-m", "0"),
        *("-d", str(tree)),
        str(raw),
        SIZE,
        epoch=epoch,
    )


def _run(box: Toolbox, *args: str, epoch: int = 0) -> None:
    environment = {
        **os.environ,
        **box.environment,
        "SOURCE_DATE_EPOCH": str(epoch),
        "E2FSPROGS_FAKE_TIME": str(epoch),
    }
    subprocess.run(
        box.argv(*args), env=environment, stdin=subprocess.DEVNULL, check=True, stdout=subprocess.DEVNULL
    )
