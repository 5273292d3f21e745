"""Execute a running QEMU's very own command line once more, by hand, in the same server.

What the agent handed over as open descriptors is opened anew under the same numbers: sockets become listening
sockets of ours, files are opened again as they were. Paths in the VM's run directory move to ours. A `-S`
(start paused, continued by the agent over QMP) is dropped, for nobody would continue it.
"""

from __future__ import annotations

import os
import re
import signal
import socket

PLACE = "/run/bench"
ABOVE = 512
DESCRIPTOR = re.compile(r"(?:^|,)(?:fd|vhostfd)=(\d+)")


class ByHand:
    """A command line taken from a live process, ready to be run as often as wanted."""

    def __init__(self, pid: int, run_directory: str) -> None:
        with open(f"/proc/{pid}/cmdline", "rb") as handle:
            words = handle.read().decode().split("\0")[:-1]
        self.program = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
        self.argv = translate(words, run_directory)
        self.opened = [(number, *_what(pid, number)) for number in descriptors(words)]
        os.makedirs(PLACE, exist_ok=True)  # noqa: PTH103

    def start(self) -> int:
        """Fork and exec; the pid. Nothing is waited for."""
        handed = [(self._open(number, target, flags), number) for number, target, flags in self.opened]
        for slot, (own, _) in enumerate(handed):
            os.dup2(own, ABOVE + slot)
            os.close(own)
        pid = os.fork()
        if pid == 0:
            self._become([number for _, number in handed])
        for slot in range(len(handed)):
            os.close(ABOVE + slot)
        return pid

    def _become(self, numbers: list[int]) -> None:
        try:
            os.setsid()
            log = os.open(f"{PLACE}/qemu.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            for slot, number in enumerate(numbers):
                os.dup2(ABOVE + slot, number, inheritable=True)
            os.execv(self.program, self.argv)
        finally:
            os._exit(127)

    @staticmethod
    def _open(number: int, target: str, flags: int) -> int:
        if not target.startswith("socket:"):
            return os.open(target, flags & ~os.O_CREAT & ~os.O_EXCL & ~os.O_TRUNC)
        path = f"{PLACE}/{number}.sock"
        if os.path.exists(path):  # noqa: PTH110
            os.unlink(path)  # noqa: PTH108
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(path)
        listening.listen(1)
        return listening.detach()


def descriptors(argv: list[str]) -> list[int]:
    """The numbers of all descriptors the command line speaks of."""
    return sorted({int(number) for word in argv for number in DESCRIPTOR.findall(word)})


def translate(argv: list[str], run_directory: str) -> list[str]:
    """The same command line for our own place."""
    return [word.replace(run_directory.rstrip("/") + "/", PLACE + "/") for word in argv if word != "-S"]


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _what(pid: int, number: int) -> tuple[str, int]:
    """What a live process has open there, and how: (target, flags)."""
    with open(f"/proc/{pid}/fdinfo/{number}") as handle:
        flags = next(int(line.split()[1], 8) for line in handle if line.startswith("flags:"))
    return os.readlink(f"/proc/{pid}/fd/{number}"), flags  # noqa: PTH115
