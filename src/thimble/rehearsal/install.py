"""The power goes while a host installs itself: the disk starts whole or not at all, and takes it again."""

from __future__ import annotations

import random
import time
from pathlib import Path

import msgspec

from thimble.client.http import Client
from thimble.contract.common import TaskState
from thimble.contract.deploy import InstallRequest, KeyCreate
from thimble.core.problem import Problem
from thimble.lab.spec import LabDisk, LabFirmware, ServerSpec
from thimble.rehearsal.image_server import ServedImage
from thimble.rehearsal.ledger import Ledger
from thimble.rehearsal.scenario import Broken
from thimble.rehearsal.site import Site

GIB = 1 << 30
#: A disk that is not bootable is known by silence.
START_S = 60.0


class Install:
    """A diskless host installs on the one disk: a new one, or what the last cut left of it."""

    name = "install"

    def __init__(
        self, spec: ServerSpec, image: ServedImage, certificate: Path, firmware: LabFirmware
    ) -> None:
        self._spec = msgspec.structs.replace(spec, disks=(LabDisk(size_bytes=4 * GIB, forgets=True),))
        self._image = image
        self._certificate = certificate.read_text()
        self._firmware = firmware
        self._task = ""
        self._done = False
        self.busy_s = self.whole_s = 0.0

    def prepare(self) -> Site:
        self._site = Site(self._spec)
        self._site.ready()
        self._site.sign_in()
        begun = time.monotonic()
        self.begin(random.Random(0))
        while not self._done:
            self.writing()
            time.sleep(0.2)
        self.busy_s = time.monotonic() - begun
        self.whole_s = self.busy_s * 1.6
        self._site.server.cut_power(random.Random(0))
        self.verify(Ledger())
        return self._site

    def begin(self, _: random.Random, /) -> str:
        request = InstallRequest(disk="/dev/vda", erase=True, image=self._image.url)
        self._site.ask(self._trust)
        started = self._site.order(lambda client: client.call("deploy.install", request))
        self._task, self._done = started.task.id, False
        return "on /dev/vda"

    def _trust(self, client: Client) -> None:
        if not client.call("key.list").keys:
            client.call("key.create", KeyCreate(name="rehearsal", certificate=self._certificate))

    def writing(self) -> bool:
        """Any of its steps but the first; once it has said that it is done, the disk has to start."""
        try:
            with self._site.client(timeout=5) as client:
                task = client.call("task.get", path={"task": self._task})
        except Problem:
            return False
        if task.state is TaskState.FAILED:
            raise Broken(f"the installation failed: {task.problem}")
        self._done = task.state is TaskState.DONE
        return task.step not in ("", "source", "check")

    def verify(self, _: Ledger, /) -> str:
        """Start from the disk alone; if it does not, the diskless medium again, beside what is left."""
        was_done = self._done
        self._site.restart_from_disk(self._firmware, wait=False)
        if self._starts():
            self._is_the_same_host()
            self._site.renew(self._spec)
            return "starts"
        if was_done:
            raise Broken("the installation was acknowledged, but the disk does not boot")
        self._site.restart(self._spec)
        self._site.sign_in()
        return "does not boot yet"

    def _starts(self) -> bool:
        try:
            self._site.ready(START_S)
        except Problem:
            return False
        return True

    def _is_the_same_host(self) -> None:
        try:
            self._site.host()
        except Problem as problem:
            raise Broken(
                f"the disk boots, but is not the host that was installed: {problem.detail}"
            ) from None
