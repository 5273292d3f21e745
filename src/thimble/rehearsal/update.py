"""The power goes while a host updates itself: it comes back, old or new, and knows which."""

from __future__ import annotations

import random
import time
from pathlib import Path

import msgspec

from thimble.contract.deploy import (
    Deploy,
    Guests,
    InstallRequest,
    KeyCreate,
    OutcomeState,
    Reboot,
    SlotState,
    UpdateRequest,
)
from thimble.contract.host import PowerRequest
from thimble.core.problem import Problem
from thimble.lab.spec import LabDisk, LabFirmware, ServerSpec
from thimble.rehearsal.image_server import ServedImage
from thimble.rehearsal.ledger import Ledger
from thimble.rehearsal.scenario import Broken, keeps_word
from thimble.rehearsal.site import Site

GIB = 1 << 30
SETTLE_S = 420.0
WRITING = ("write", "mirror", "offer")


class Update:
    """Two images, updated to in turn, on an installed host."""

    name = "update"

    def __init__(
        self,
        spec: ServerSpec,
        images: tuple[ServedImage, ServedImage],
        certificate: Path,
        firmware: LabFirmware,
    ) -> None:
        self._spec = msgspec.structs.replace(spec, disks=(LabDisk(size_bytes=6 * GIB, forgets=True),))
        self._images = images
        self._certificate = certificate.read_text()
        self._firmware = firmware
        self._target = images[0]
        self._task = ""
        self.busy_s = self.whole_s = 0.0

    def prepare(self) -> Site:
        """Install from a diskless boot, start from the disk, do one whole update and time it."""
        self._site = Site(self._spec)
        self._site.ready()
        self._site.sign_in()
        first = self._images[0]
        with self._site.client() as client:
            client.call("key.create", KeyCreate(name="rehearsal", certificate=self._certificate))
            request = InstallRequest(disk="/dev/vda", erase=True, image=first.url)
            client.finish(client.call("deploy.install", request), timeout=300)
            client.call("host.shutdown", PowerRequest(guest_timeout_s=5))
        self._site.server.wait_off(60)
        self._site.restart_from_disk(self._firmware)
        self._measure()
        return self._site

    def _measure(self) -> None:
        self.ask_for(Reboot.KEXEC)
        begun = time.monotonic()
        self._site.ready()
        self.busy_s = (time.monotonic() - begun) * 0.6
        self.settled()
        self.whole_s = time.monotonic() - begun
        if self._state().build != self._target.build:
            raise Broken("an update that nobody disturbed did not take place")

    def begin(self, dice: random.Random, /) -> str:
        reboot = dice.choice((Reboot.KEXEC, Reboot.FIRMWARE))
        self.ask_for(reboot)
        return f"to {self._target.build[:8]} by {reboot}"

    def ask_for(self, reboot: Reboot) -> None:
        """Update to the image that does not run."""
        running = self._state().build
        self._target = next(image for image in self._images if image.build != running)
        request = UpdateRequest(
            image=self._target.url, allow_older=True, vms=Guests.SHUTDOWN, reboot=reboot, guest_timeout_s=10
        )
        started = self._site.order(lambda client: client.call("deploy.update", request))
        self._task = started.task.id

    def writing(self) -> bool:
        if not self._task:
            return False
        try:
            with self._site.client(timeout=3.0) as client:
                return client.call("task.get", path={"task": self._task}).step in WRITING
        except Problem:
            return False  # it is going down already

    def verify(self, ledger: Ledger, /) -> str:
        keeps_word(ledger, self._site.host().name)
        state = self.settled()
        keeps_word(ledger, self._site.host().name)
        if state.build not in [image.build for image in self._images]:
            raise Broken(f"it runs {state.build}, which is neither the old nor the new image")
        running = [slot for slot in state.slots if slot.running]
        if len(running) != 1 or running[0].build != state.build or running[0].state is not SlotState.GOOD:
            raise Broken(f"it does not know what it runs: {state.slots}")
        if state.last is not None and state.last.state is OutcomeState.PENDING:
            raise Broken(f"the last update is still reported as running: {state.last}")
        is_new = state.build == self._target.build
        return "new" if is_new else "old"

    def _state(self) -> Deploy:
        answer: Deploy = self._site.ask(lambda client: client.call("deploy.get"), timeout=120)
        return answer

    def settled(self) -> Deploy:
        """The state once no trial is going on any more; the host may reboot meanwhile."""
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            state = self._state()
            pending = state.last is not None and state.last.state is OutcomeState.PENDING
            if not state.trial and not pending:
                return state
            time.sleep(1.0)
        raise Broken(f"after {SETTLE_S:.0f} s it is still not clear what it runs: {state}")
