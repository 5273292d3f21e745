"""The power goes while a host applies a document: applying it again ends where it should have ended."""

from __future__ import annotations

import random
import time

import msgspec

from thimble.contract.document_api import DocumentPlan, DocumentText
from thimble.lab.spec import STATE_LABEL, LabDisk, ServerSpec
from thimble.rehearsal.ledger import Ledger
from thimble.rehearsal.scenario import Broken, keeps_word
from thimble.rehearsal.site import Site

GIB = 1 << 30


class Apply:
    """A document of switches and VMs that says something else each time."""

    name = "apply"

    def __init__(self, spec: ServerSpec) -> None:
        self._spec = msgspec.structs.replace(
            spec, disks=(LabDisk(size_bytes=2 * GIB, label=STATE_LABEL, forgets=True),)
        )
        self._document = DocumentText(text=document(0))
        self._round = 0
        self.busy_s = self.whole_s = 0.0

    def prepare(self) -> Site:
        self._site = Site(self._spec)
        self._site.ready()
        self._site.sign_in()
        begun = time.monotonic()
        self._whole()
        self.busy_s = self.whole_s = time.monotonic() - begun + 1.0
        return self._site

    def begin(self, _: random.Random, /) -> str:
        self._round += 1
        self._document = DocumentText(text=document(self._round))
        self._site.order(lambda client: client.call("document.apply", self._document))
        return f"document {self._round}"

    def writing(self) -> bool:
        return True

    def verify(self, ledger: Ledger, /) -> str:
        keeps_word(ledger, self._site.host().name)
        left = len(self._plan().effects)
        self._whole()
        if rest := self._plan().effects:
            raise Broken(f"applied again, but effects are left: {[effect.what for effect in rest]}")
        return f"{left} effects were left"

    def _plan(self) -> DocumentPlan:
        answer: DocumentPlan = self._site.ask(lambda client: client.call("document.plan", self._document))
        return answer

    def _whole(self) -> None:
        self._site.ask(
            lambda client: client.finish(client.call("document.apply", self._document), timeout=120)
        )


def document(number: int) -> str:
    """Two new switches and two new VMs each time, and the first VM changed.

    The VMs are stopped: a guest's firmware under nested emulation ends the outer QEMU now and then, and the
    applying is on trial.
    """
    lines = ["format = 1", ""]
    for part in range(2):
        lines += ["[[switch]]", f'name = "net{number}x{part}"', 'kind = "isolated"', ""]
    for part in range(2):
        name = f"vm{number}x{part}"
        lines += [
            "[[vm]]",
            f'name = "{name}"',
            "memory_mib = 64",
            'state = "stopped"',
            "disks = [{ size_bytes = 16777216 }]",
            "",
        ]
    lines += ["[[vm]]", 'name = "always"', f"memory_mib = {64 + number % 16}", 'state = "stopped"', ""]
    return "\n".join(lines)
