"""The files behind a server's disks: sparse, empty or with a labelled ext4, and the EFI system partition.

Everything is made by the toolbox's programs on plain files: no loop device, no mount, no root.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from thimble.core.problem import Code, Problem, Reason
from thimble.image.toolbox import Toolbox

ESP_START = 1 << 20


def empty(path: Path, size_bytes: int) -> None:
    """A sparse file of that size."""
    with path.open("xb") as handle:
        handle.truncate(size_bytes)


def overlay(path: Path, original: Path, form: str, box: Toolbox) -> None:
    """A disk that begins as `original` and takes what is written instead of it."""
    _run(box, "qemu-img", "create", "-q", "-f", "qcow2", "-b", str(original), "-F", form, str(path))


def labelled(path: Path, size_bytes: int, label: str, box: Toolbox) -> None:
    """A sparse file with an ext4 file system; the one labelled `thimble-state` keeps the state."""
    empty(path, size_bytes)
    reserved = min(5.0, 100 * (16 << 20) / size_bytes)  # for root: the agent writes though guests filled it
    _run(
        box, "mkfs.ext4", "-q", "-F", "-L", label, "-m", f"{reserved:.4f}",
        "-E", "lazy_itable_init=1,nodiscard", str(path),
    )  # fmt: skip


def system_partition(path: Path, efi: Path, box: Toolbox) -> None:
    """A GPT disk with one FAT32 EFI system partition that starts `efi`."""
    room = max(64 << 20, efi.stat().st_size + (16 << 20)) // 512
    path.unlink(missing_ok=True)
    empty(path, ESP_START + room * 512 + (1 << 20))
    table = f"label: gpt\nstart={ESP_START // 512}, size={room}, type=uefi, name=esp\n"
    _run(box, "sfdisk", "--quiet", str(path), given=table)
    part = f"{path}@@{ESP_START}"
    _run(box, "mformat", "-i", part, "-F", "-h", "64", "-s", "32", "-T", str(room), "-v", "THIMBLE", "::")
    _run(box, "mmd", "-i", part, "::/EFI", "::/EFI/BOOT")
    _run(box, "mcopy", "-i", part, str(efi), "::/EFI/BOOT/BOOTX64.EFI")


def _run(box: Toolbox, *args: str, given: str = "") -> None:
    environment = {**os.environ, **box.environment}
    done = subprocess.run(
        box.argv(*args), env=environment, input=given, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = tuple(Reason(message=line, code=Code.FAILED) for line in done.stderr.splitlines()[-4:])
        raise Problem(Code.FAILED, f"{args[0]} failed", hint="is the disk full?", reasons=said)
