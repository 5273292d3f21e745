"""Create and start a VM through the API, and the same QEMU by hand, in turns; times in this server's seconds.

Both sides end at the same event: the guest's first line in the serial log, looked for every 10 ms.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks.inside.api import Api
from benchmarks.inside.byhand import LOG, PLACE, ByHand, end

LOOK_S = 0.01
GIVE_UP_S = 180.0


def first_line(log: str, offset: int, marker: bytes) -> float:
    """When the marker stood in the log behind `offset`, as monotonic time."""
    deadline = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline:
        if _size(log) > offset:
            with open(log, "rb") as handle:
                handle.seek(offset)
                if marker in handle.read():
                    return time.monotonic()
        time.sleep(LOOK_S)
    raise RuntimeError(f"the guest's first line did not come within {GIVE_UP_S:.0f} s")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0


def upload(api: Api, folder: str) -> None:
    for name in ("vmlinuz", "initrd"):
        with open(f"{folder}/{name}", "rb") as handle:
            api.call("PUT", f"/images/local/bench-{name}", raw=handle.read())


def measure(given: dict[str, Any], say: Callable[..., None]) -> None:
    """Says `create`, then `api` and `hand` in turns, in seconds; `…-begins` before each of them."""
    api = Api(given["password"])
    upload(api, "/bench.d")
    marker = given["marker"].encode()
    for number in range(given["rounds"]):
        vm, seconds = api.timed_task("POST", "/vms", {**given["spec"], "name": f"create{number}"})
        say(side="create", seconds=seconds)
        api.task("DELETE", f"/vms/{vm}", {})
    vm = api.task("POST", "/vms", given["spec"])
    run_directory = f"/run/thimble/vms/{vm}"
    by_api = _Api(api, vm, run_directory, marker, say)
    by_hand = _Hand(by_api.taken(), marker, say)
    for number in range(given["rounds"]):
        turns = [by_api.once, by_hand.once]
        for turn in turns if number % 2 else reversed(turns):
            turn()


class _Api:
    def __init__(
        self, api: Api, vm: str, run_directory: str, marker: bytes, say: Callable[..., None]
    ) -> None:
        self._api, self._vm, self._run, self._marker, self._say = api, vm, run_directory, marker, say

    def taken(self) -> ByHand:
        """The command line of a first start, which is not counted."""
        self._start()
        status = self._api.call("GET", f"/vms/{self._vm}")["status"]
        found = ByHand(status["pid"])
        self._say(side="argv", argv=found.argv, accel=status["accel"])
        self._kill()
        return found

    def once(self) -> None:
        """Start, wait for the first line, kill."""
        answered, seconds = self._start()
        self._say(side="api", seconds=seconds, answered=answered)
        self._kill()

    def _start(self) -> tuple[float, float]:
        log = f"{self._run}/serial.log"
        offset = _size(log)
        self._api.connect()  # and one call on it, so that the call measured finds everything open
        self._api.call("GET", f"/vms/{self._vm}")
        self._say(side="api-begins")
        began = time.monotonic()
        started = self._api.call("POST", f"/vms/{self._vm}/start")
        answered = time.monotonic() - began
        seconds = first_line(log, offset, self._marker) - began
        self._api.connect()  # the other one may have been silent for too long
        self._api.call("GET", f"/tasks/{started['task']['id']}?wait_s=60")
        return answered, seconds

    def _kill(self) -> None:
        self._api.task("POST", f"/vms/{self._vm}/kill")


class _Hand:
    def __init__(self, taken: ByHand, marker: bytes, say: Callable[..., None]) -> None:
        self._taken, self._marker, self._say = taken, marker, say

    def once(self) -> None:
        log = f"{PLACE}/{LOG}"
        offset = _size(log)
        self._say(side="hand-begins")
        began = time.monotonic()
        pid = self._taken.start()
        try:
            self._say(side="hand", seconds=first_line(log, offset, self._marker) - began)
        finally:
            end(pid)
