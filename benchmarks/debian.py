"""A plain Debian tree from verified packages: unpacked, then configured by their own scripts in a chroot.

Needs root. It never touches the machine: mounts happen in a namespace that ends with the command.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from thimble.core.problem import Code, Problem, Reason
from thimble.image import cache
from thimble.image.locking import Pin
from thimble.image.progress import Report

SETTINGS = """\
force-unsafe-io
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/doc/*
"""

NAMESPACE = """\
set -e
mount -t proc proc "$1/proc"
mount -t sysfs sys "$1/sys"
mount -t tmpfs -o mode=755 dev "$1/dev"
for node in null zero full random urandom; do
    touch "$1/dev/$node"
    mount --bind /dev/$node "$1/dev/$node"
done
ln -s /proc/self/fd "$1/dev/fd"
mount --bind "$2" "$1/mnt"
cd "$1"
shift 2
root=$PWD
exec nice chroot "$root" "$@"
"""

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "SYSTEMD_OFFLINE": "1",
}

MERGED = ("bin", "sbin", "lib", "lib64")


def deb(pin: Pin) -> Path:
    """Where the cache keeps this package."""
    return cache.root() / "debs" / f"{pin.sha256}.deb"


def install(tree: Path, base: Sequence[Pin], rest: Sequence[Pin], report: Report) -> None:
    """Fill the empty directory `tree` with the essential packages `base` and with `rest`, all configured."""
    _skeleton(tree)
    for pin in base:
        _extract(pin, tree)
    for done, pins in ((0.2, base), (0.4, rest)):
        report("peer", done, f"configuring {len(pins)} Debian packages")
        _dpkg(tree, ["--force-depends", "--install"], pins)
    _dpkg(tree, ["--configure", "--pending"], ())
    (tree / "usr/sbin/policy-rc.d").unlink()


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
        "sys",
        "dev",
        "mnt",
    ):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name in ("status", "available"):
        (tree / "var/lib/dpkg" / name).touch()
    (tree / "etc/dpkg/dpkg.cfg.d/lean").write_text(SETTINGS)
    policy = tree / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)


def _extract(pin: Pin, tree: Path) -> None:
    reader = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb(pin))], stdout=subprocess.PIPE)
    writer = subprocess.run(
        [
            "tar",
            "--extract",
            "--file=-",
            f"--directory={tree}",
            "--keep-directory-symlink",
            "--numeric-owner",
            "-p",
        ],
        stdin=reader.stdout,
        check=False,
    )
    if reader.wait() != 0 or writer.returncode != 0:
        raise Problem(Code.FAILED, f"{pin} could not be unpacked", hint="is the disk full?")


def _dpkg(tree: Path, verbs: list[str], pins: Sequence[Pin]) -> None:
    files = [f"/mnt/{deb(pin).name}" for pin in pins]
    done = subprocess.run(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
            *("sh", "-c", NAMESPACE, "sh", str(tree), str(cache.root() / "debs")),
            *("dpkg", *verbs, *files),
        ],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = tuple(
            Reason(message=line, code=Code.FAILED) for line in (done.stdout + done.stderr).splitlines()[-12:]
        )
        raise Problem(Code.FAILED, "dpkg could not configure the packages of the libvirt peer", reasons=said)
