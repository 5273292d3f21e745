"""A Debian root tree from verified packages: unpacked, then configured by their own scripts in a chroot.

Needs root.

    1. every `base` package is extracted, so that dpkg and a shell exist
    2. dpkg installs `base`, then the rest, from files (the way debootstrap and mmdebstrap do it)
    3. an overlay is laid over it; what only this run knows (host keys, machine id, logs, caches) is removed

It never touches the machine: mounts happen in a mount namespace of their own that ends with the command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from thimble.guest import packages
from thimble.guest.overlay import Overlay
from thimble.image.fault import fault
from thimble.image.locking import Lock, Pin
from thimble.image.progress import Report

LEFT_OUT = (
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/bash-completion/*",
    "/usr/share/doc/*/[!c]*",
    "/usr/share/doc/*/changelog*",
    "/usr/lib/udev/hwdb.d/*",
)
DPKG_SETTINGS = "\n".join(["force-unsafe-io", *(f"path-exclude={pattern}" for pattern in LEFT_OUT), ""])

UNPROVISIONED = "root:!unprovisioned:"
"""What systemd-firstboot takes for "no password was ever set", so that a credential may set one."""

NAMESPACE = """\
set -e
mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=755 dev "$1/dev"
for node in null zero full random urandom; do
  touch "$1/dev/$node"
  mount --bind /dev/$node "$1/dev/$node"
done
ln -s /proc/self/fd "$1/dev/fd"
mkdir "$1/debs"
mount --bind "$2" "$1/debs"
cd "$1"
shift 2
root=$PWD
exec chroot "$root" /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""

ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "SYSTEMD_OFFLINE": "1",
}

MERGED = ("bin", "sbin", "lib", "lib64")
FORGOTTEN = (
    "etc/ssh/ssh_host_*",
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "var/log/*",
    "var/cache/*/*",
    "var/lib/dpkg/*-old",
    "var/lib/systemd/*",
    "etc/shadow-",
    "etc/passwd-",
    "etc/group-",
    "etc/gshadow-",
    "debs",
    "usr/sbin/policy-rc.d",
)


def make(tree: Path, lock: Lock, sets: tuple[str, ...], laid: Overlay, report: Report) -> None:
    """Fill the empty directory `tree` with the packages of `base` and `sets`, and lay the overlay on."""
    rest = tuple(sorted(pin for name in sets for pin in lock.named(name)))
    install(tree, lock.named("base"), rest, lock.epoch, report)
    _finish(tree, laid)


def install(tree: Path, base: tuple[Pin, ...], rest: tuple[Pin, ...], epoch: int, report: Report) -> None:
    """Fill the empty directory `tree` with these packages, unpacked and configured, and nothing else.

    `base` must hold the essential packages and all they need; the .deb files must be in the cache.
    """
    if os.geteuid() != 0:
        hint = "run it once with sudo; the result is cached"
        raise fault("unsupported", "a Debian guest can only be built by root", hint=hint)
    _skeleton(tree)
    for pin in base:
        _extract(pin, tree)
    for done, pins in ((0.2, base), (0.5, rest)):
        report("guest", done, f"configuring {len(pins)} Debian packages")
        _dpkg(tree, ["--force-depends", "--install"], pins, epoch)
    _dpkg(tree, ["--configure", "--pending"], (), epoch)


def _skeleton(tree: Path) -> None:
    tree.chmod(0o755)
    for name in MERGED:
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for name in (
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
        "etc/dpkg/dpkg.cfg.d",
        "proc",
        "dev",
        "usr/sbin",
    ):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name in ("status", "available"):
        (tree / "var/lib/dpkg" / name).touch()
    (tree / "etc/dpkg/dpkg.cfg.d/thimble").write_text(DPKG_SETTINGS)
    policy = tree / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)


def _extract(pin: Pin, tree: Path) -> None:
    reader = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(packages.deb(pin))], stdout=subprocess.PIPE)
    words = ["tar", "--extract", "--file=-", f"--directory={tree}"]
    words += ["--keep-directory-symlink", "--numeric-owner", "--preserve-permissions"]
    words += [f"--exclude=.{pattern}" for pattern in LEFT_OUT]
    writer = subprocess.run(
        words,
        stdin=reader.stdout,
        check=False,
    )
    if reader.wait() != 0 or writer.returncode != 0:
        raise fault("failed", f"{pin} could not be unpacked", hint="is the disk full?")


def _dpkg(tree: Path, verbs: list[str], pins: tuple[Pin, ...], epoch: int) -> None:
    files = [f"/debs/{packages.deb(pin).name}" for pin in pins]
    debs = packages.deb_directory()
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    words += ["sh", "-c", NAMESPACE, "sh", str(tree), str(debs), "dpkg", *verbs, *files]
    done = subprocess.run(
        words,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT, "SOURCE_DATE_EPOCH": str(epoch)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    with suppress(FileNotFoundError):  # it failed before it was made
        (tree / "debs").rmdir()
    if done.returncode != 0:
        said = tuple((done.stdout + done.stderr).splitlines()[-8:])
        raise fault("failed", "dpkg could not configure the guest's packages", reasons=said)


def _finish(tree: Path, laid: Overlay) -> None:
    for pattern in FORGOTTEN:
        for path in sorted(tree.glob(pattern)):
            _remove(path)
    shadow = tree / "etc/shadow"
    shadow.write_text(shadow.read_text().replace("root:*:", UNPROVISIONED))
    for name in laid.removed:
        _remove(tree / name)
    for name, text in laid.files.items():
        _place(tree / name).write_text(text)
    for name, target in laid.links.items():
        _place(tree / name).symlink_to(target)


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(path)
    return path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
