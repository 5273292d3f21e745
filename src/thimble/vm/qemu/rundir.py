"""The runtime files of one VM, in RAM.

    <run>/vms/<id>/qmp.sock serial.sock qga.sock   bound by us, handed over listening
                   serial.log qemu.log             its serial output and its own words; bounded by `trim`
                   process.json                    (pid, start): who it is
                   running.json                    what it was started as

Invariant: `process.json` exists exactly while a QEMU of ours may run.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from thimble.sys import files, logfile
from thimble.sys import process as linux
from thimble.vm.record.spec import Running

#: No log grows beyond this: they lie in RAM.
LOG_MAX = 1 << 20


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
        except (OSError, ValueError, msgspec.MsgspecError):
            return None

    def was(self) -> Running | None:
        try:
            return msgspec.json.decode(self.running.read_bytes(), type=Running)
        except (OSError, ValueError, msgspec.MsgspecError):
            return None

    def write_running(self, running: Running) -> None:
        files.write_atomic(self.running, msgspec.json.encode(running), durable=False)

    def trim(self) -> None:
        """Keep the logs short; what is cut off goes to `….old`."""
        for path in (self.serial_log, self.qemu_log):
            logfile.shorten(path, most=LOG_MAX, keep=64 * 1024)

    def last_output(self) -> str:
        """The tail of what QEMU and the guest said."""
        words = qemu_words(logfile.tail(self.qemu_log, 4096))
        serial = logfile.tail(self.serial_log, 4096).decode(errors="replace").strip()
        return "\n".join(part for part in (serial, words) if part)


def qemu_words(log: bytes) -> str:
    """What QEMU said, without our traces and the program's name."""
    lines = [line.strip() for line in log.decode(errors="replace").splitlines()]
    words = [line for line in lines if line and "qemu_system_shutdown_request" not in line]
    return "\n".join(
        line.split(": ", 1)[1] if line.startswith("qemu-system") and ": " in line else line
        for line in words[-8:]
    )
