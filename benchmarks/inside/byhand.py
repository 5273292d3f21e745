"""Execute a running QEMU's very own command line once more, by hand, in the same server.

The agent hands everything over as open descriptors; they are opened anew under the same numbers:

    -add-fd fd=N,…,opaque=KEY    /dev/kvm, a log of our own (QEMU moves these away: the key tells what it was)
    -chardev socket,…,fd=N       a listening socket of our own
    /proc/self/fd/N              the same file or memory file that the running process has open

Other descriptors (disks, taps) are refused: two QEMUs cannot share them, and the measured guest has none.
A `-S` (start paused, continued by the agent over QMP) is dropped, for nobody would continue it.
"""

from __future__ import annotations

import os
import re
import signal
import socket

PLACE = "/run/bench"
LOG = "serial.log"
ABOVE = 512
ADDED = re.compile(r"^fd=(\d+),.*opaque=([^,]+)")
LISTENING = re.compile(r"^socket,.*\bfd=(\d+)")
INHERITED = re.compile(r"/proc/self/fd/(\d+)")
OTHER = re.compile(r"(?:^|,)(?:fd|fds|vhostfd|vhostfds)=\d")


class ByHand:
    """A command line taken from a live process, ready to be run as often as wanted."""

    def __init__(self, pid: int) -> None:
        with open(f"/proc/{pid}/cmdline", "rb") as handle:
            words = handle.read().decode().split("\0")[:-1]
        self.program = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
        self.argv = [word for word in words if word != "-S"]
        self.wanted = wanted(words)
        self._held = {
            number: os.open(f"/proc/{pid}/fd/{number}", os.O_RDONLY)
            for number, what in self.wanted.items()
            if what == "inherited"
        }
        os.makedirs(PLACE, exist_ok=True)  # noqa: PTH103

    def start(self) -> int:
        """Fork and exec; the pid. Nothing is waited for."""
        for slot, (number, what) in enumerate(self.wanted.items()):
            own = os.dup(self._held[number]) if what == "inherited" else _open(number, what)
            os.dup2(own, ABOVE + slot)
            os.close(own)
        pid = os.fork()
        if pid == 0:
            self._become()
        for slot in range(len(self.wanted)):
            os.close(ABOVE + slot)
        return pid

    def _become(self) -> None:
        try:
            os.setsid()
            log = os.open(f"{PLACE}/qemu.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            for slot, number in enumerate(self.wanted):
                os.dup2(ABOVE + slot, number, inheritable=True)
            os.execv(self.program, self.argv)
        finally:
            os._exit(127)


def wanted(argv: list[str]) -> dict[int, str]:
    """Number → what must be open there: `kvm`, `serial.log`, `listen` or `inherited`. Pure."""
    found: dict[int, str] = {}
    for word in argv:
        if added := ADDED.search(word):
            if added[2] not in ("kvm", LOG):
                raise RuntimeError(f"cannot open {added[2]} a second time")
            found[int(added[1])] = added[2]
        elif listening := LISTENING.search(word):
            found[int(listening[1])] = "listen"
        elif OTHER.search(word):
            raise RuntimeError(f"cannot hand over what {word} wants a second time")
        for number in INHERITED.findall(word):
            found[int(number)] = "inherited"
    return found


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _open(number: int, what: str) -> int:
    if what == "kvm":
        return os.open("/dev/kvm", os.O_RDWR)
    if what == LOG:
        return os.open(f"{PLACE}/{LOG}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    path = f"{PLACE}/{number}.sock"
    if os.path.exists(path):  # noqa: PTH110
        os.unlink(path)  # noqa: PTH108
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(path)
    listening.listen(1)
    return listening.detach()
