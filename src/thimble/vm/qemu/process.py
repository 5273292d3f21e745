"""QEMU as a process: what it is given, how it is started, found again, ended.

    <run>/vms/<id>/qmp.sock serial.sock qga.sock   bound by us, handed over listening
                   serial.log qemu.log             its serial output and its own words; bounded by `trim`
                   process.json                    (pid, start): who it is
                   running.json                    what it was started as

Invariant: `process.json` exists exactly while a QEMU of ours may run. QEMU opens no path of ours (`render`).
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem
from thimble.sys import cgroup, files, logfile, unix
from thimble.sys import process as linux
from thimble.vm.record.spec import Definition, Running

#: No log grows beyond this: they lie in RAM.
LOG_MAX = 1 << 20
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


class RunDir:
    """The runtime files of one VM."""

    def __init__(self, run: Path, id: str) -> None:
        self.directory = run / "vms" / id
        self.qmp = self.directory / "qmp.sock"
        self.serial = self.directory / "serial.sock"
        self.qga = self.directory / "qga.sock"
        self.serial_log = self.directory / "serial.log"
        self.qemu_log = self.directory / "qemu.log"
        self.process = self.directory / "process.json"
        self.running = self.directory / "running.json"

    def make(self) -> None:
        """An empty run directory for a new start; the last run's serial output stays."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):
            self.qemu_log.replace(self.directory / "qemu.log.old")

    def clear(self) -> None:
        """QEMU is gone: only its logs stay."""
        for path in (self.process, self.running, self.qmp, self.serial, self.qga):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """The logs too; the directory is flat."""
        with suppress(FileNotFoundError):
            for path in self.directory.iterdir():
                path.unlink(missing_ok=True)
            self.directory.rmdir()

    def identity(self) -> linux.Identity | None:
        """Who ran here last; None when nobody is recorded."""
        try:
            return msgspec.json.decode(self.process.read_bytes(), type=linux.Identity)
        except (OSError, ValueError):
            return None

    def was(self) -> Running | None:
        try:
            return msgspec.json.decode(self.running.read_bytes(), type=Running)
        except (OSError, ValueError):
            return None

    def write_running(self, running: Running) -> None:
        files.write_atomic(self.running, msgspec.json.encode(running), durable=False)

    def last_output(self) -> str:
        """The tail of what QEMU and the guest said."""
        words = qemu_words(tail(self.qemu_log, 4096))
        serial = tail(self.serial_log, 4096).decode(errors="replace").strip()
        return "\n".join(part for part in (serial, words) if part)


class LaunchFds:
    """Descriptors for one QEMU; closed on our side when the `with` block ends."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> LaunchFds:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def take(self, key: str, descriptor: int) -> None:
        self.fds[key] = descriptor
        self._stack.callback(os.close, descriptor)

    def open(self, key: str, path: Path | str, flags: int, *, mode: int = 0o600) -> None:
        """Raises `Problem` in the system's words."""
        try:
            self.take(key, os.open(path, flags | os.O_CLOEXEC, mode))
        except OSError as error:
            raise files.problem(error, f"cannot open {path}") from error

    def open_regular(self, key: str, path: Path, flags: int) -> None:
        """For what lies in datastores, which others may have written: nothing but a plain file is opened."""
        try:
            self.take(key, files.open_regular(path, flags))
        except OSError as error:
            raise files.problem(error, f"cannot open {path}") from error

    def listen(self, key: str, path: Path) -> None:
        """Bind and listen on the unix socket `path`."""
        try:
            door = unix.listen(path)
        except OSError as error:
            raise files.problem(error, f"cannot listen on {path}") from error
        self.take(key, door.detach())

    def memory(self, key: str, data: bytes) -> None:
        """A file of RAM that has no name, to read; for secrets."""
        with open(os.memfd_create(key, os.MFD_CLOEXEC), "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            self.open(key, f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)


def spawn(rundir: RunDir, argv: list[str], fds: LaunchFds, *, uid: int | None) -> linux.Identity:
    """Start QEMU; `remember` who it is next."""
    return linux.spawn(
        argv,
        output=rundir.qemu_log,
        uid=uid,
        gid=uid,
        fds=tuple(fds.fds.values()),
        env={"LC_ALL": "C.UTF-8"},
    )


def remember(rundir: RunDir, who: linux.Identity, group: Path | None) -> None:
    """Write down who it is, put it into its control group. Raises `Problem`; it runs on then."""
    files.write_atomic(rundir.process, msgspec.json.encode(who), durable=False)
    if group is not None:
        with suppress(Problem):  # a QEMU that died at once is told by its connection
            cgroup.create(group)
            cgroup.enter(group, who.pid)


def find(record: Definition, group: Path | None) -> linux.Identity | None:
    """A QEMU of this VM that nobody wrote down: the agent died in the midst of starting it."""
    pids = cgroup.members(group) if group is not None else []
    for pid in pids or [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"-uuid" in words and record.uuid.encode() in words:
                return linux.identify(pid)
    return None


def usable_by_others(qemu: QemuPaths) -> bool:
    """Can another user run it? Not when it lies in a private directory, as developers' caches do."""
    return linux.usable_by_others(Path(qemu.program), *map(Path, qemu.share))


def qemu_words(log: bytes) -> str:
    """What QEMU said, without our traces and the program's name."""
    lines = [line.strip() for line in log.decode(errors="replace").splitlines()]
    words = [line for line in lines if line and "qemu_system_shutdown_request" not in line]
    return "\n".join(
        line.split(": ", 1)[1] if line.startswith("qemu-system") and ": " in line else line
        for line in words[-8:]
    )


def tail(path: Path, count: int) -> bytes:
    """The last `count` bytes; empty when there is no such file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - count))
            return file.read()
    except OSError:
        return b""


def trim(rundir: RunDir) -> None:
    """Keep the logs small: both writers append, so cutting to nothing is safe; the tail goes to `….old`."""
    for path in (rundir.serial_log, rundir.qemu_log):
        logfile.shorten(path, most=LOG_MAX, keep=64 * 1024)


def start_problem(log: bytes) -> Problem:
    """Why QEMU would not start, in its own words."""
    words = qemu_words(log) or "it ended without a word"
    code = (
        Code.NO_MEMORY
        if "annot allocate memory" in words or "cannot set up guest memory" in words
        else Code.FAILED
    )
    return Problem(code, f"QEMU did not start: {words}")
