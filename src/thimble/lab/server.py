"""One virtual server: power, wires, waiting. Synchronous, for the command line, tests and measurements.

States: absent → (up) on → (down, cut_power, its own power-off) off → (power_on) on …; `remove` makes it
absent. Invariants: a server's disks survive every loss of power; a pid is only ever signalled with its
start time checked; host ports are chosen by QEMU itself (port 0), so two servers never race for one.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from thimble.core.problem import Code, Problem, Reason
from thimble.image.progress import Report, silent
from thimble.image.toolbox import Toolbox
from thimble.lab import disks, home, outer, powerloss, render, tools
from thimble.lab.qmp import Qmp
from thimble.lab.render import Tools
from thimble.lab.serial import SerialLog
from thimble.lab.spec import LabFirmware, ServerSpec, check
from thimble.sys import process

FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)")


class LabServer:
    """A handle on a server that exists. Make one with `up` or `attach`."""

    def __init__(self, spec: ServerSpec, where: Path) -> None:
        self.spec = spec
        self.home = where
        self.serial = SerialLog(where / "serial.log")
        self.timeline: dict[str, float] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._status: int | None = None
        self._cut = False
        self._log_from = 0  # what an earlier QEMU said is not held against this one
        self._running = home.read_running(where)

    @classmethod
    def up(cls, spec: ServerSpec, report: Report = silent) -> LabServer:
        """Make the server's disks and power it on. Raises EXISTS when one of that name is running."""
        check(spec)
        where = home.of(spec.name)
        if home.read_running(where):
            raise Problem(
                Code.EXISTS, f"a server called {spec.name!r} is running", hint=f"thimble lab down {spec.name}"
            )
        home.remove(where)
        kit, box = tools.find(report)
        home.write_spec(where, spec)
        _furnish(spec, where, kit, box)
        server = cls(spec, where)
        server.power_on(kit)
        return server

    @classmethod
    def attach(cls, name: str) -> LabServer:
        """The handle on a server made by another process. Raises NOT_FOUND."""
        where = home.of(name)
        server = cls(home.read_spec(where), where)
        server.serial.skip()
        return server

    def power_on(self, kit: Tools | None = None) -> None:
        """Start QEMU on the disks as they are; returns when it answers on QMP."""
        if self.running:
            raise Problem(Code.CONFLICT, f"server {self.spec.name!r} is already on")
        kit = kit or tools.find()[0]
        chosen = tools.accel()
        argv = render.argv(self.spec, kit, chosen)
        self._cut, self._status = False, None
        for stale in ("qmp.sock", "serial.sock"):
            (self.home / stale).unlink(missing_ok=True)
        self.serial.skip()
        for disk in self._forgetful():
            powerloss.prepare(disk)
        self._log_from = len(_read(self.home / "qemu.log"))
        powered_on = time.time()
        with (self.home / "qemu.log").open("ab") as log:
            self._child = subprocess.Popen(
                argv, cwd=self.home, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        who = process.identify(self._child.pid) or process.Identity(self._child.pid, 0)
        self._running = home.RunningServer(who=who, accel=chosen.name, powered_on=powered_on)
        home.write_running(self.home, self._running)
        self.timeline = {"power_on": 0.0}
        self._await_qmp(timeout=30)

    def blank_firmware(self) -> None:
        """Erase the UEFI variables, as when the battery was removed."""
        shutil.copyfile(tools.find()[0].ovmf_vars, self.home / "vars.fd")

    @property
    def running(self) -> bool:
        self._reap()
        return self._running is not None and process.alive(self._running.who)

    @property
    def accel(self) -> str:
        return self._running.accel if self._running else ""

    def qmp(self, command: str, **arguments: object) -> object:
        """One QMP command's answer."""
        with Qmp(self.home / "qmp.sock") as qmp:
            return qmp.execute(command, **arguments)

    def forward(self, port: int) -> int:
        """The port on 127.0.0.1 that leads to the server's `port`; made if it is not there."""
        with Qmp(self.home / "qmp.sock") as qmp:
            if port not in (known := _forwards(qmp.human("info usernet"))):
                said = qmp.human(f"hostfwd_add net0 tcp:127.0.0.1:0-:{port}")
                known = _forwards(qmp.human("info usernet"))
                if port not in known:
                    raise Problem(Code.FAILED, f"port {port} cannot be forwarded: {said.strip()}")
            return known[port]

    def wait_for(self, pattern: bytes, timeout: float, *, mark: str = "") -> bytes:
        """The serial bytes up to `pattern`; `mark` names the moment in the timeline.

        Raises OuterCrash when the outer QEMU broke, UNAVAILABLE when the server went off, TIMEOUT.
        """
        return self._wait(pattern, timeout, self.check, mark)

    def ask(self, line: bytes, answer: bytes, timeout: float) -> bytes:
        """Type `line` at the console and wait for `answer`, as `wait_for` does."""
        with home.connect(self.home / "serial.sock", timeout=5) as wire:
            wire.sendall(line + b"\n")
            wire.setblocking(False)

            def drain() -> None:
                # A client that does not read stops the server's UART after some 280 bytes.
                with contextlib.suppress(BlockingIOError):
                    wire.recv(65536)
                self.check()

            return self._wait(answer, timeout, drain, "")

    def _wait(self, pattern: bytes, timeout: float, watch: Callable[[], None], mark: str) -> bytes:
        found = self.serial.wait_for(pattern, timeout=timeout, check=watch)
        if found is None:
            self.check()
            raise Problem(
                Code.TIMEOUT,
                f"server {self.spec.name!r} did not print {pattern!r} within {timeout:.0f} s",
                reasons=self._evidence(),
            )
        if "first_byte" not in self.timeline:  # it came together with the words waited for
            self.mark("first_byte")
        if mark:
            self.mark(mark)
        return found

    def mark(self, name: str) -> None:
        """Put this moment into the timeline, in seconds since power-on."""
        self.timeline[name] = round(self.seconds_on(), 3)

    def seconds_on(self) -> float:
        return time.time() - self._running.powered_on if self._running else 0.0

    def wait_off(self, timeout: float) -> bool:
        """Has the server gone off within that time?"""
        deadline = time.monotonic() + timeout
        while self.running:
            if time.monotonic() >= deadline:
                return False
            self.check()
            time.sleep(0.05)
        return True

    def power_button(self) -> None:
        """Press the power button: the server's software decides what follows."""
        self.qmp("system_powerdown")

    def reset(self) -> None:
        """The reset button: at once, nothing is asked."""
        self.serial.skip()
        self.qmp("system_reset")

    def cut_power(self, dice: random.Random | None = None) -> tuple[int, int]:
        """Pull the plug; the disks keep what was written.

        Disks that forget lose of what was not flushed as `dice` say; answers how many writes were uncertain,
        and how many of them were lost.
        """
        self._cut = True
        if self._running:
            process.send(self._running.who, signal.SIGKILL)
        if not self.wait_off(10):
            raise Problem(Code.TIMEOUT, f"QEMU of server {self.spec.name!r} cannot be killed")
        (self.home / "process.json").unlink(missing_ok=True)
        fates = [powerloss.lose(disk, dice) for disk in self._forgetful()] if dice else []
        return sum(fate[0] for fate in fates), sum(fate[1] for fate in fates)

    def _forgetful(self) -> list[Path]:
        return [
            self.home / render.disk_name(number, disk)
            for number, disk in enumerate(self.spec.disks)
            if disk.forgets
        ]

    def down(self, *, force: bool = False, timeout: float = 200, keep: bool = False) -> None:
        """Power it off (by its button unless `force`, or after `timeout`), and remove it unless `keep`."""
        if self.running and not force:
            try:
                self.power_button()
                force = not self.wait_off(timeout)
            except Problem:
                force = True
        if self.running:
            self.cut_power()
        (self.home / "process.json").unlink(missing_ok=True)
        if not keep:
            home.remove(self.home)

    def cpu_seconds(self) -> float:
        """Processor time the whole server has used since power-on: the figure that load does not distort."""
        if not self._running:
            return 0.0
        try:
            stat = Path(f"/proc/{self._running.who.pid}/stat").read_bytes()
        except OSError:
            return 0.0
        fields = stat[stat.rindex(b")") + 2 :].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _await_qmp(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.qmp("query-status")
                return
            except Problem as problem:
                self.check()
                if not self.running or time.monotonic() >= deadline:
                    raise Problem(
                        Code.FAILED, "the server's QEMU does not start", reasons=self._evidence()
                    ) from problem
            time.sleep(0.02)

    def check(self) -> None:
        """Raise if the server is off or its QEMU crashed; note the first byte."""
        if "first_byte" not in self.timeline and self.serial.read():
            self.mark("first_byte")
        alive = self.running
        log = _read(self.home / "qemu.log")[self._log_from :]
        exit_status = None if self._cut else self._status
        if evidence := outer.blame(
            exit_status=exit_status, qemu_log=log, serial=self.serial.read(), accel=self.accel or "tcg"
        ):
            raise outer.OuterCrash(evidence)
        if not alive and not self._cut and self._status not in (None, 0):
            raise Problem(
                Code.UNAVAILABLE,
                f"QEMU of server {self.spec.name!r} ended ({self._status})",
                reasons=self._evidence(),
            )

    def _reap(self) -> None:
        if self._child is not None and self._status is None:
            self._status = self._child.poll()

    def _evidence(self) -> tuple[Reason, ...]:
        said = _read(self.home / "qemu.log").decode(errors="replace").splitlines()
        kept = [line for line in said if "TCG doesn't support requested feature" not in line][-5:]
        kept += self.serial.tail(1200).decode(errors="replace").splitlines()[-12:]
        return tuple(Reason(message=line, code=Code.FAILED) for line in kept)


def _furnish(spec: ServerSpec, where: Path, kit: Tools, box: Toolbox) -> None:
    """Make the files the spec asks for."""
    for number, disk in enumerate(spec.disks):
        path = where / render.disk_name(number, disk)
        if disk.file:
            if not (where / disk.file).is_file():
                raise Problem(Code.NOT_FOUND, f"there is no disk file {disk.file}")
            if disk.keep:
                disks.overlay(path, Path(disk.file), disk.format, box)
        elif disk.label:
            disks.labelled(path, disk.size_bytes, disk.label, box)
        else:
            disks.empty(path, disk.size_bytes)
    if spec.firmware is LabFirmware.UEFI:
        shutil.copyfile(kit.ovmf_vars, where / "vars.fd")
        if spec.efi:
            disks.system_partition(where / "esp.raw", Path(spec.efi), box)


def _forwards(said: str) -> dict[int, int]:
    """From the server's port to ours, as `info usernet` tells."""
    return {int(found[2]): int(found[1]) for found in FORWARD.finditer(said)}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
