"""Settles where the state lives: waits for slow disks, has a dirty partition checked, mounts it, or RAM.

look ──candidates, or patience over──► choose ──clean──────────────► mount ──► partition
 ▲ │                                     │ └────dirty──► e2fsck ──0-3─┘ │
 └─┘ disks on the way                    └──none, two, unusable─┐   ≥ 4 │ failed
                                                                └───────┴────► RAM, with the reason
"""

from __future__ import annotations

import os
import signal
import time

from . import drivers, statedisk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .jobs import Children
    from .loop import Loop
    from .modalias import Table

CHECK_TIMEOUT = 300.0
# Seconds NVMe and USB get to tell that there is a disk at all.
PATIENCE = 2.0


class StateSearch:
    """`settle` ends with `kind` partition or ram. `warn` is for what an operator must see."""

    def __init__(
        self, loop: Loop, children: Children, say: Callable[[str], None], warn: Callable[[str], None]
    ) -> None:
        self._loop, self._children, self._say, self._warn = loop, children, say, warn
        self._candidates: list[statedisk.Candidate] = []
        self._done: Callable[[], None] = lambda: None
        self._since = 0.0
        self._wait = 0.0
        self._table: Table | None = None
        self.kind, self.device, self.reason = "ram", "", ""

    def path(self) -> str:
        """Where state that lasts is, or nothing."""
        return statedisk.PATH if self.kind == "partition" else ""

    def settle(
        self,
        table: Table,
        candidates: list[statedisk.Candidate],
        wait: float,
        done: Callable[[], None],
    ) -> None:
        """Finds and mounts the state partition; at most `wait` seconds for disks that are on the way."""
        self._table, self._candidates, self._wait, self._done = table, candidates, wait, done
        self._since = time.monotonic()
        self._look()

    def use_ram(self, reason: str, *, loud: bool) -> None:
        """Gives up on disks; `loud` if somebody has a state partition and will miss it."""
        statedisk.mount_ram()
        self.kind, self.device, self.reason = "ram", "", reason
        if loud:
            self._warn(f"STATE IS IN RAM AND WILL BE LOST: {reason}")
        else:
            self._say(f"state is in RAM and ends with the power ({reason})")

    def _look(self) -> None:
        patience = {"surely": self._wait, "perhaps": min(PATIENCE, self._wait)}
        waited = time.monotonic() - self._since
        if not self._candidates and waited < patience.get(statedisk.on_the_way(), 0.0):
            self._children.job("look", self._look_again, self._found, self._look_hangs)
            return
        chosen, reason = statedisk.choose(self._candidates)
        if chosen is None:
            self._give_up(reason, loud=bool(self._candidates))
        else:
            self._check(chosen)

    def _look_again(self) -> list[statedisk.Candidate]:
        """In a child: what appeared may want drivers of its own (a USB stick behind its controller)."""
        if self._table is not None:
            drivers.coldplug(self._table, (drivers.STORAGE,))
        return statedisk.find()

    def _look_hangs(self, why: str) -> None:
        self._give_up(f"looking for disks is {why}", loud=True)

    def _found(self, found: Any, _problem: str) -> None:
        self._candidates = found or []
        self._loop.after(0.0 if found else 0.1, self._look)

    def _check(self, chosen: statedisk.Candidate) -> None:
        device, _, is_clean = chosen
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
                self._give_up(f"{device} is damaged: e2fsck ended with code {code}", loud=True)

        pid = self._children.spawn(["/usr/sbin/e2fsck", "-p", device], ended)

    def _mount(self, device: str) -> None:
        table = self._table

        def work() -> None:
            if table is not None:
                statedisk.mount(table, device)

        def ended(_result: Any, problem: str) -> None:
            if problem:
                self._give_up(f"{device} could not be mounted: {problem}", loud=True)
                return
            self.kind, self.device, self.reason = "partition", device, ""
            self._say(f"state is on {device}")
            self._done()

        self._children.job("state", work, ended)

    def _give_up(self, reason: str, *, loud: bool) -> None:
        self.use_ram(reason, loud=loud)
        self._done()
