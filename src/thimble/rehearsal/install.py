"""The power goes while a host installs itself: the disk starts whole or not at all, and takes it again."""

from __future__ import annotations

import random
import time
from pathlib import Path

import msgspec

from thimble.contract.common import TaskState
from thimble.contract.deploy import InstallRequest, KeyCreate
from thimble.core.problem import Problem
from thimble.lab.spec import Disk, Firmware, ServerSpec
from thimble.rehearsal.ledger import Ledger
from thimble.rehearsal.scenario import Broken
from thimble.rehearsal.shelf import Image
from thimble.rehearsal.site import Site

GIB = 1 << 30
#: A disk that is not bootable is known by silence.
START_S = 60.0


class Install:
    """A diskless host installs on the one disk; every round begins with a diskless boot."""

    name = "install"

    def __init__(self, spec: ServerSpec, image: Image, certificate: Path, firmware: Firmware) -> None:
        self._spec = msgspec.structs.replace(spec, disks=(Disk(size_bytes=4 * GIB, forgets=True),))
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
        self.whole_s = self.busy_s * 1.2
        self._site.server.cut_power(random.Random(0))
        self.verify(Ledger())
        return self._site

    def begin(self, _: random.Random, /) -> str:
        request = InstallRequest(disk="/dev/vda", erase=True, image=self._image.url)
        trust = KeyCreate(name="rehearsal", certificate=self._certificate)
        self._site.ask(lambda client: client.call("key.create", trust))
        started = self._site.ask(lambda client: client.call("deploy.install", request))
        self._task, self._done = started.task.id, False
        return "on /dev/vda"

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
        """Start from the disk alone; then the diskless medium again, for the next round."""
        was_done = self._done
        self._site.restart_from_disk(self._firmware, wait=False)
        starts = self._starts()
        if was_done and not starts:
            raise Broken("the installation was acknowledged, and the disk does not start")
        self._site.server.cut_power()
        self._site.restart(self._spec)
        self._site.sign_in()
        return "starts" if starts else "does not start yet"

    def _starts(self) -> bool:
        try:
            self._site.ready(START_S)
        except Problem:
            return False
        return True
