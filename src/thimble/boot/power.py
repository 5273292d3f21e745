"""Orderly shutdown and reboot, and the buttons that ask for it.

    up ──button or keys──► draining ──agent done, 180 s, or asked again──► stopping ──► down
     └──────────── agent done, or it was never ready ──────────────────────────▲

draining: the agent got SIGPWR (power off) or SIGUSR2 (reboot) and shuts its guests down. stopping: everybody
gets SIGTERM, then SIGKILL. down: seed and clock saved, file systems synced and unmounted, reboot(2).
"""

from __future__ import annotations

import os
import signal
import time

from . import clock, entropy, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .children import Children
    from .loop import Loop
    from .supervise import Supervised

POWEROFF, REBOOT, KEXEC = "poweroff", "reboot", "kexec"
ASK = {POWEROFF: signal.SIGPWR, REBOOT: signal.SIGUSR2}
_COMMAND = {POWEROFF: linux.RB_POWER_OFF, REBOOT: linux.RB_AUTOBOOT, KEXEC: linux.RB_KEXEC}
_WORDS = {POWEROFF: "powering off", REBOOT: "rebooting", KEXEC: "starting the new kernel (kexec)"}


class Power:
    """Takes the machine down. `supervised` are the children that must not be restarted meanwhile."""

    drain_timeout = 180.0
    term_timeout = 8.0
    kill_timeout = 2.0
    disk_timeout = 30.0

    def __init__(
        self,
        loop: Loop,
        children: Children,
        say: Callable[[str], None],
        agent: Supervised,
        supervised: Sequence[Supervised],
        state: Callable[[], str],
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        """`at_end()` is called right before the machine goes down."""
        self._loop, self._children, self._say = loop, children, say
        self._agent, self._supervised, self._state_path = agent, supervised, state
        self._at_end = at_end
        self.stage = "up"
        self._wanted = POWEROFF
        self._served_by = 0

    def ask(self, kind: str, source: str) -> None:
        """Somebody at the machine asks for shutdown or reboot; a second request does not wait for guests."""
        if self.stage == "draining":
            self._say(f"{source} pressed again: not waiting for virtual machines")
            self.stop(kind)
        elif self.stage == "up" and self._served_by:
            self.stage, self._wanted = "draining", kind
            if self._served_by == self._agent.pid:
                self._agent.signal(ASK[kind])
            self._say(f"{source}: shutting down virtual machines, then {_WORDS[kind]} (again: at once)")
            self._loop.after(self.drain_timeout, lambda: self._too_long(kind))
        elif self.stage == "up":
            self._say(f"{source}: {_WORDS[kind]}")
            self.stop(kind)

    def agent_ready(self) -> None:
        """The agent is ready. One that failed while it shut its guests down gets the signal again.

        Before this a signal would only kill it.
        """
        self._served_by = self._agent.pid
        if self.stage == "draining":
            self._agent.signal(ASK[self._wanted])

    def stop(self, kind: str) -> None:
        """The guests are stopped, or not waited for: ends all processes, then takes the machine down."""
        if self.stage in ("stopping", "down"):
            return
        self.stage = "stopping"
        self._say(_WORDS[kind])
        for child in self._supervised:
            child.stop()
        _signal_all(signal.SIGTERM)
        self._wait_for_children(kind, time.monotonic() + self.term_timeout, killed=False)

    def _too_long(self, kind: str) -> None:
        if self.stage == "draining":
            self._say(
                f"virtual machines still running after {self.drain_timeout:.0f} s: not waiting any longer"
            )
            self.stop(kind)

    def _wait_for_children(self, kind: str, deadline: float, *, killed: bool) -> None:
        if not processes_left():
            self._down(kind)
        elif time.monotonic() < deadline:
            self._loop.after(0.05, lambda: self._wait_for_children(kind, deadline, killed=killed))
        elif killed:
            self._down(kind)
        else:
            _signal_all(signal.SIGKILL)
            self._wait_for_children(kind, time.monotonic() + self.kill_timeout, killed=True)

    def _down(self, kind: str) -> None:
        """Disks may hang; they get `disk_timeout` in a child, the machine goes down in any case."""
        self.stage = "down"
        state = self._state_path()

        def end() -> None:
            self._at_end()
            try:
                linux.reboot(_COMMAND[kind])
            except OSError:
                if kind != KEXEC:
                    raise
                linux.reboot(linux.RB_AUTOBOOT)  # no kernel is loaded

        self._children.job("shutdown", lambda: settle_disks(state), lambda _result, _problem: end())
        self._loop.after(self.disk_timeout, end)


def processes_left() -> bool:
    """Whether any process but PID 1 and the kernel's own threads is left (zombies count until reaped)."""
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rsplit(")", 1)[-1].split()
            except OSError:
                continue
            if fields[1] not in ("0", "2"):  # children of the kernel and of kthreadd are kernel threads
                return True
    return False


def settle_disks(state: str) -> list[str]:
    """Saves seed and clock, syncs, unmounts every disk, or makes it read-only; returns what failed."""
    failed: list[str] = []
    if state:
        for save in (entropy.save, clock.stamp):
            try:
                save(state)
            except OSError as error:
                failed.append(f"{state}: {error.strerror}")
    os.sync()
    with open("/proc/self/mounts") as file:
        mounts = [line.split() for line in file]
    for source, target, *_ in reversed(mounts):
        if not source.startswith("/dev/") or target == "/usr":
            continue
        target = target.replace("\\040", " ")
        try:
            linux.unmount(target)
        except OSError:
            try:
                linux.mount("", target, "", linux.MS_REMOUNT | linux.MS_RDONLY)
            except OSError as error:
                failed.append(f"{target}: {error.strerror}")
    os.sync()
    return failed


def _signal_all(number: int) -> None:
    try:
        os.kill(-1, number)
    except OSError:
        pass
