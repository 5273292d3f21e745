"""Decides where the state is kept: waits for slow disks, checks and mounts the state partition, or uses RAM.

look ──candidates, or wait is over──► choose ──a mirror──► assemble ─┐
 ▲ │                                     │ └───────────────clean──────┴─► mount ──► partition
 └─┘ disks pending                    │           dirty──► e2fsck ──0-3─┘ │
                                         └──none, two, unusable─┐     ≥ 4 │  │ failed, or late
                                                                └─────────┴──┴──► RAM, with the reason
"""

from __future__ import annotations

import os
import signal
import time

from ..devices import drivers
from ..net import management
from . import blocks, raidset, statedisk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..children import Children
    from ..devices.modalias import DriverTable
    from ..loop import Loop
    from .blocks import BlockDevice
    from .statedisk import Candidate

CHECK_TIMEOUT = 300.0
# Seconds NVMe and USB get to report their first disk.
PATIENCE = 2.0


class StateSearch:
    """`settle` ends with `kind` partition or ram. `warn` is for what the administrator must see.

    `seen` is all that was found on disks; `disks` the disks that hold the state; `record` the text of the
    management network's record on the state partition, if any.
    """

    def __init__(
        self, loop: Loop, children: Children, say: Callable[[str], None], warn: Callable[[str], None]
    ) -> None:
        self._loop, self._children, self._say, self._warn = loop, children, say, warn
        self._done: Callable[[], None] = lambda: None
        self._since = 0.0
        self._wait = 0.0
        self._table: DriverTable | None = None
        self.seen: list[BlockDevice] = []
        self.disks: list[str] = []
        self.kind, self.device, self.reason, self.record = "ram", "", "", ""

    def path(self) -> str:
        """The path of persistent state, or nothing."""
        return statedisk.PATH if self.kind == "partition" else ""

    def read_record(self) -> str:
        """The network's record as it is now; it may lie in RAM with the rest of the state."""
        return management.read_record(statedisk.PATH)

    def settle(
        self, table: DriverTable, seen: list[BlockDevice], wait: float, done: Callable[[], None]
    ) -> None:
        """Finds and mounts the state partition; waits at most `wait` seconds for slow disks."""
        self._table, self.seen, self._wait, self._done = table, seen, wait, done
        self._since = time.monotonic()
        self._look()

    def use_ram(self, reason: str, *, loud: bool) -> None:
        """Uses RAM; `loud` if there is a state partition, whose content will be missed."""
        statedisk.mount_ram()
        self.kind, self.device, self.reason = "ram", "", reason
        if loud:
            self._warn(f"STATE IS IN RAM AND WILL BE LOST: {reason}")
        else:
            self._say(f"state is in RAM and lost at power-off ({reason})")

    def _look(self) -> None:
        found = statedisk.candidates(self.seen)
        patience = {"yes": self._wait, "maybe": min(PATIENCE, self._wait)}
        waited = time.monotonic() - self._since
        whole = found and all(one.complete() for one in found)
        if not whole and waited < patience.get(statedisk.disks_pending(), 0.0):
            self._children.job("look", self._look_again, self._found, self._look_hangs)
            return
        chosen, reason = statedisk.choose(found)
        names = chosen.device.split("+") if chosen is not None else []
        self.disks = [one["disk"] for one in self.seen if one["device"] in names]
        if chosen is None:
            self._give_up(reason, loud=bool(found))
        elif chosen.members:
            self._assemble(chosen)
        else:
            self._check(chosen.device, is_clean=chosen.clean)

    def _look_again(self) -> list[BlockDevice]:
        """In a child: new devices may need drivers of their own (a USB stick behind its controller)."""
        if self._table is not None:
            drivers.coldplug(self._table, (drivers.STORAGE,))
        return blocks.find()

    def _look_hangs(self, why: str) -> None:
        self._give_up(f"looking for disks {why}", loud=True)

    def _found(self, found: Any, _problem: str) -> None:
        self.seen = found or []
        complete = any(one.complete() for one in statedisk.candidates(self.seen))
        self._loop.after(0.0 if complete else 0.1, self._look)

    def _assemble(self, chosen: Candidate) -> None:
        table, members = self._table, chosen.members

        def work() -> Any:
            return raidset.assemble(table, members) if table is not None else (None, [])

        def ended(result: Any, problem: str) -> None:
            array, warnings = result or (None, [])
            for warning in warnings:
                self._warn(warning)
            if array is None or array["kind"] != "ext4":
                problem = problem or "no ext4 file system"
                self._give_up(f"the mirror {chosen.device} cannot be used: {problem}", loud=True)
            else:
                self._check(array["device"], is_clean=bool(array["clean"]))

        self._children.job(
            "raid",
            work,
            ended,
            lambda why: self._give_up(f"assembling the mirror {chosen.device} {why}", loud=True),
        )

    def _check(self, device: str, *, is_clean: bool) -> None:
        if is_clean:
            self._mount(device)
            return
        self._say(f"checking the state partition {device}")
        killer = self._loop.after(CHECK_TIMEOUT, lambda: os.kill(pid, signal.SIGTERM) if pid else None)

        def ended(status: int) -> None:
            killer.cancel()
            code = os.waitstatus_to_exitcode(status)
            if 0 <= code < 4:
                self._mount(device)
            else:
                self._give_up(f"{device} is damaged: e2fsck ended with exit code {code}", loud=True)

        pid = self._children.spawn(["/usr/sbin/e2fsck", "-p", device], ended)

    def _mount(self, device: str) -> None:
        table = self._table

        def work() -> str:
            return statedisk.mount(table, device) if table is not None else ""

        def ended(result: Any, problem: str) -> None:
            if problem:
                self._give_up(f"cannot mount {device}: {problem}", loud=True)
                return
            statedisk.move_into_place()
            self.kind, self.device, self.reason, self.record = "partition", device, "", result
            self._say(f"state is on {device}")
            self._done()

        def late(why: str) -> None:
            self._give_up(f"mounting {device} {why}", loud=True)

        self._children.job("mount", work, ended, late, too_late=statedisk.unmount_staged)

    def _give_up(self, reason: str, *, loud: bool) -> None:
        self.use_ram(reason, loud=loud)
        self._done()
