"""Loads a kernel to be started without the firmware (kexec_file_load(2)); PID 1 starts it at the end."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from thimble.core.problem import Code, Problem

_SYS_KEXEC_FILE_LOAD = 320  # x86-64
_UNLOAD = 1
_WHY = {
    errno.EPERM: "the kernel is locked down (Secure Boot), and this one is not signed for that",
    errno.ENOEXEC: "it is no kernel for this machine",
    errno.EBUSY: "another one is being loaded",
    errno.ENOMEM: "there is not enough memory for it",
    errno.EADDRNOTAVAIL: "there is no memory in the right place for it",
    errno.ENOSYS: "this kernel cannot start another one",
    errno.EKEYREJECTED: "its signature is not accepted",
    errno.ENODATA: "it has no signature",
    errno.EBADMSG: "its signature is damaged",
}


def load(kernel: int, initrd: int, command_line: str) -> None:
    """Load kernel and initrd from these descriptors, both whole files. Raises `Problem` UNSUPPORTED."""
    text = command_line.encode() + b"\0"
    _call(kernel, initrd, len(text), text, 0)


def unload() -> None:
    """Forget what was loaded; nothing loaded is fine."""
    _call(-1, -1, 0, None, _UNLOAD)


def loaded() -> bool:
    """Is a kernel loaded?"""
    try:
        return Path("/sys/kernel/kexec_loaded").read_text().strip() == "1"
    except OSError:
        return False


def _call(kernel: int, initrd: int, length: int, text: bytes | None, flags: int) -> None:
    import ctypes  # late: dear, and hardly ever needed

    libc = ctypes.CDLL(None, use_errno=True)
    size, flag = ctypes.c_ulong(length), ctypes.c_ulong(flags)
    if libc.syscall(_SYS_KEXEC_FILE_LOAD, kernel, initrd, size, text, flag) == 0:
        return
    number = ctypes.get_errno()
    raise Problem(
        Code.UNSUPPORTED,
        f"the new kernel cannot be started directly: {_WHY.get(number, os.strerror(number))}",
        hint="Reboot by the firmware instead; that always works.",
    )
