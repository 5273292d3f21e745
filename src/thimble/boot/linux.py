"""The system calls PID 1 needs and `os` does not have: raw calls, OSError on failure."""

from __future__ import annotations

import ctypes
import os
from errno import EEXIST

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOATIME, MS_MOVE = 1, 2, 4, 8, 32, 1024, 8192
MNT_DETACH = 2
RB_AUTOBOOT, RB_HALT, RB_POWER_OFF, RB_DISABLE_CAD = 0x01234567, 0xCDEF0123, 0x4321FEDC, 0
RB_KEXEC = 0x45584543
RLIMIT_NOFILE = 7

_SYS_FINIT_MODULE = 313
_MODULE_INIT_COMPRESSED_FILE = 4
_RNDADDENTROPY = 0x40085203
_LOOP_SET_FD, _LOOP_CTL_GET_FREE = 0x4C00, 0x4C82

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def trim_heap() -> None:
    """Free pages of the heap go back to the kernel."""
    _libc.malloc_trim(0)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode() or None
    )
    _check(result, target)


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), target)


def load_module(path: str, parameters: str = "") -> None:
    """finit_module(2); a module that is in the kernel already is fine."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = 0 if path.endswith(".ko") else _MODULE_INIT_COMPRESSED_FILE
        _check(_libc.syscall(_SYS_FINIT_MODULE, fd, parameters.encode(), flags), path)
    except OSError as error:
        if error.errno != EEXIST:
            raise
    finally:
        os.close(fd)


def reboot(command: int) -> None:
    """reboot(2): all but RB_DISABLE_CAD, which gives Ctrl-Alt-Del to PID 1 as SIGINT, do not return."""
    _check(_libc.reboot(ctypes.c_int(command if command < 0x80000000 else command - 0x100000000)), "reboot")


def set_hostname(name: str) -> None:
    """sethostname(2)."""
    raw = name.encode()
    _check(_libc.sethostname(raw, len(raw)), name)


def set_open_files(limit: int) -> None:
    """Raises RLIMIT_NOFILE of this process, soft and hard."""
    pair = (ctypes.c_ulong * 2)(limit, limit)
    _check(_libc.setrlimit(RLIMIT_NOFILE, ctypes.byref(pair)), "RLIMIT_NOFILE")


def add_entropy(data: bytes, bits: int) -> None:
    """RNDADDENTROPY: mixes `data` into the pool and credits it with `bits`."""
    from fcntl import ioctl

    fd = os.open("/dev/random", os.O_WRONLY | os.O_CLOEXEC)
    try:
        header = bits.to_bytes(4, "little") + len(data).to_bytes(4, "little")
        ioctl(fd, _RNDADDENTROPY, header + data)
    finally:
        os.close(fd)


def attach_loop(path: str) -> str:
    """A read-only loop device over this file."""
    from fcntl import ioctl

    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    device = f"/dev/loop{ioctl(control, _LOOP_CTL_GET_FREE)}"
    os.close(control)
    backing = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    loop = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    ioctl(loop, _LOOP_SET_FD, backing)
    os.close(backing)
    os.close(loop)
    return device
