"""The peer: a plain Debian 13 with libvirt and QEMU, as its packages come. Needs root once, then cached.

    <cache>/peers/libvirt-<recipe>/   disk.raw    ext4 root, read only by us (boots get a temporary overlay)
                                      vmlinuz, initrd, facts.json (package names and versions, bytes)

It gets every advantage that plain packages allow: nothing recommended, no documentation, no SSH server, no
login prompt on the line we listen to, direct kernel boot, ready before the network is.
Its own units are untouched.
`libvirt: ready in N.N s` appears on the serial line once `virsh list` has answered.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem
from thimble.guest import packages, rootfs
from thimble.image import cache, toolbox
from thimble.image.packages import private_apt, read_lock
from thimble.image.progress import Report
from thimble.image.toolbox import Toolbox

RECIPE = 2
SIZE_BYTES = 3 << 30
LABEL = "libvirt-peer"
EXT4 = "lazy_itable_init=0,lazy_journal_init=0"  # nothing left to do for the kernel later
READY = "libvirt: ready"
CMDLINE = f"root=LABEL={LABEL} rw quiet console=tty0 console=ttyS0,115200"

PACKAGES = (
    "dbus",
    "dnsmasq-base",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "libpam-systemd",
    "libvirt-clients",
    "libvirt-daemon-system",
    "linux-image-amd64",
    "login",
    "netbase",
    "passwd",
    "procps",
    "qemu-system-x86",
    "qemu-utils",
    "systemd",
    "systemd-sysv",
    "udev",
    "zstd",
)

READY_UNIT = """\
[Unit]
Description=Say on the serial line when libvirt answers
After=libvirtd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/say-ready

[Install]
WantedBy=multi-user.target
"""

SAY_READY = """\
#!/bin/sh
until virsh --connect qemu:///system list >/dev/null 2>&1; do sleep 0.1; done
read -r up _ </proc/uptime
echo "libvirt: ready in $up s" >/dev/ttyS0
case $(cat /proc/cmdline) in *bench.probe=*) exec /bin/sh /usr/local/sbin/probe >/dev/ttyS0 ;; esac
"""

NETWORK = "[Match]\nType=ether\n\n[Network]\nDHCP=yes\n"

UNITS = "etc/systemd/system"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """The peer's files."""

    disk: Path
    kernel: Path
    initrd: Path
    cmdline: str
    packages: int
    tree_bytes: int
    versions: dict[str, str]


def ensure(report: Report) -> Peer:
    """The peer in the cache, made if missing: about 300 MB of packages and some minutes."""
    texts = [PACKAGES, READY_UNIT, SAY_READY, NETWORK, _probe(), LABEL, SIZE_BYTES, EXT4]
    name = cache.key("libvirt", RECIPE, texts)[:16]
    home = cache.directory(cache.root() / "peers" / f"libvirt-{name}", lambda into: _make(into, report))
    facts = json.loads((home / "facts.json").read_text())
    return Peer(
        disk=home / "disk.raw",
        kernel=home / "vmlinuz",
        initrd=home / "initrd",
        cmdline=CMDLINE,
        packages=len(facts["versions"]),
        tree_bytes=facts["tree_bytes"],
        versions=facts["versions"],
    )


def _probe() -> str:
    return resources.files("benchmarks.inside").joinpath("probe.sh").read_text()


def _make(into: Path, report: Report) -> None:
    apt = private_apt("trixie")
    apt.update(report)
    base = tuple(apt.resolve(["?essential"]))
    rest = tuple(pin for pin in apt.resolve(["?essential", *PACKAGES]) if pin not in base)
    pins = [*base, *rest]
    absent = [pin for pin in pins if not packages.deb(pin).is_file()]
    for start in range(0, len(absent), 24):
        report("peer", start / len(absent), f"fetching {len(absent) - start} packages of Debian + libvirt")
        apt.download(absent[start : start + 24], cache.root() / "debs")
    box = toolbox.ensure(report)
    with tempfile.TemporaryDirectory(prefix=".tree.", dir=into) as scratch:
        tree = Path(scratch, "root")
        tree.mkdir()
        rootfs.install(tree, base, rest, read_lock().epoch, report)
        _arrange(tree)
        (into / "vmlinuz").write_bytes(_only(tree, "boot/vmlinuz-*").read_bytes())
        (into / "initrd").write_bytes(_only(tree, "boot/initrd.img-*").read_bytes())
        report("peer", 0.9, "writing the disk of Debian + libvirt")
        used = _file_system(tree, into / "disk.raw", box)
    facts = {"versions": {pin.name: pin.version for pin in pins}, "tree_bytes": used}
    (into / "facts.json").write_text(json.dumps(facts))


def _only(tree: Path, pattern: str) -> Path:
    found = sorted(tree.glob(pattern))
    if len(found) != 1:
        raise Problem(Code.FAILED, f"the libvirt peer's tree has {len(found)} files like {pattern}, not one")
    return found[0]


def _arrange(tree: Path) -> None:
    """Only what makes it bootable and lets it say that it is ready."""
    _write(tree / "etc/fstab", f"LABEL={LABEL} / ext4 defaults 0 1\n")
    _write(tree / "etc/hostname", "peer\n")
    _write(tree / "etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    _write(tree / "etc/systemd/network/80-dhcp.network", NETWORK)
    _write(tree / UNITS / "say-ready.service", READY_UNIT)
    _write(tree / "usr/local/sbin/say-ready", SAY_READY, 0o755)
    _write(tree / "usr/local/sbin/probe", _probe(), 0o755)
    wanted = tree / UNITS / "multi-user.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    (wanted / "say-ready.service").symlink_to(f"/{UNITS}/say-ready.service")
    (wanted / "systemd-networkd.service").unlink(missing_ok=True)
    (wanted / "systemd-networkd.service").symlink_to("/usr/lib/systemd/system/systemd-networkd.service")
    (tree / "usr/sbin/policy-rc.d").unlink()
    # The login prompt would write to the line we listen to, and cost the peer time.
    (tree / UNITS / "serial-getty@ttyS0.service").symlink_to("/dev/null")


def _write(path: Path, text: str, permissions: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(permissions)


def _file_system(tree: Path, raw: Path, box: Toolbox) -> int:
    with raw.open("wb") as handle:
        handle.truncate(SIZE_BYTES)
    words = [
        "mke2fs",
        "-q",
        *("-t", "ext4"),
        *("-L", LABEL),
        *("-E", EXT4),
        *("-d", str(tree)),
        str(raw),
    ]
    environment = {**os.environ, **box.environment}
    subprocess.run(
        box.argv(*words), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True
    )
    return sum(path.lstat().st_size for path in tree.rglob("*") if not path.is_symlink() and path.is_file())
