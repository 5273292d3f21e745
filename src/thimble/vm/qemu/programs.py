"""Where QEMU, qemu-img and their firmware are."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from thimble.sys import process as linux

_QEMU = "qemu-system-x86_64"


class QemuPaths(msgspec.Struct, frozen=True, kw_only=True):
    """Where QEMU and its firmware are. `share`: its `-L` directories, none when it knows them itself."""

    program: str = "qemu-system-x86_64"
    img: str = "qemu-img"
    share: tuple[str, ...] = ()
    ovmf_code: Path = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
    ovmf_vars: Path = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
    qboot: str = ""

    @classmethod
    def under(cls, directory: Path | None, share: Path) -> QemuPaths:
        """The programs in `directory` (None: on PATH), firmware and ROMs below `share`."""
        found = [str(share / name) for name in ("qemu", "seabios") if (share / name).is_dir()]
        qboot = share / "qemu" / "qboot.rom"
        return cls(
            program=str(directory / _QEMU) if directory else _on_path(_QEMU),
            img=str(directory / "qemu-img") if directory else "qemu-img",
            share=tuple(found),
            ovmf_code=share / "OVMF" / "OVMF_CODE_4M.fd",
            ovmf_vars=share / "OVMF" / "OVMF_VARS_4M.fd",
            qboot=str(qboot) if qboot.exists() else "",
        )


def _on_path(program: str) -> str:
    """Its full path; `shutil.which` costs an import on the way to ready."""
    for directory in os.environ.get("PATH", "/usr/bin:/bin").split(":"):
        if os.access(f"{directory}/{program}", os.X_OK):
            return f"{directory}/{program}"
    return program


def usable_by_others(qemu: QemuPaths) -> bool:
    """Can another user run it? Not when it lies in a private directory, as developers' caches do."""
    return linux.usable_by_others(Path(qemu.program), *map(Path, qemu.share))
