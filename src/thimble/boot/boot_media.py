"""Where this boot comes from: the phases that find host document and boot medium, and ask the firmware."""

from __future__ import annotations

from . import firmware
from .disks import blocks, document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .disks.blocks import BlockDevice
    from .pid1 import Pid1

    Done = Callable[[], None]


def find_document(pid1: Pid1, done: Done) -> None:
    """The host document on a disk. If there are several, the boot medium decides."""
    found = document.volumes(pid1.state.seen)
    if pid1.command_line.config:
        pid1.document = {"url": pid1.command_line.config}
        done()
    elif len(found) > 1:
        _ask_firmware(pid1, lambda: _fetch(pid1, found, done))
    else:
        _fetch(pid1, found, done)


def _fetch(pid1: Pid1, found: list[BlockDevice], done: Done) -> None:
    disk = (pid1.boot_facts or {}).get("medium") or {}
    chosen, wrong = document.choose(found, disk.get("disk", ""))
    if chosen is None:
        if wrong:
            pid1.document = {"problem": wrong}
            pid1.warn(wrong)
        done()
        return
    source = f"{chosen['device']} ({chosen['label']})"
    parse = not pid1.state.record and not pid1.command_line_plan.given

    def ended(result: Any, problem: str) -> None:
        if problem:
            message = f"cannot read the host document on {source}: {problem}"
            pid1.document = {"problem": message}
            pid1.warn(message)
        elif result["path"]:
            pid1.document = {"path": result["path"], "source": source}
            pid1.document_network = result["management"]
            pid1.say(f"host document found on {source}")
        done()

    def late(why: str) -> None:
        ended(None, why)

    pid1.children.job("document", lambda: document.fetch(pid1.drivers, chosen, parse=parse), ended, late)


def read_firmware(pid1: Pid1, done: Done) -> None:
    """What was booted from, and whether this is a trial boot. Readiness does not wait for it."""

    def asked() -> None:
        if pid1.boot_facts and pid1.boot_facts["trial"]:
            pid1.trial.begin()
        pid1.write_facts()
        done()

    _ask_firmware(pid1, asked)


def _ask_firmware(pid1: Pid1, then: Done) -> None:
    """Asks the firmware once."""
    if pid1.boot_facts is not None:
        then()
        return

    def ended(result: Any, problem: str) -> None:
        if problem:
            pid1.log.write("firmware", problem)
        name, secure, entry, device, pid1.booted_from = result or ["uefi", 0, "", "", ""]
        pid1.loader = firmware.LoaderFacts(name, secure=bool(secure), entry=entry, device=device)
        pid1.learn_boot()
        then()

    def late(why: str) -> None:
        ended(None, f"asking the firmware: {why}")

    named = pid1.command_line.values.get("thimble.boot", "")
    pid1.children.job("firmware", lambda: firmware.read(pid1.drivers, named), ended, late)


def discs(pid1: Pid1, done: Done) -> None:
    """Scans again, now with slow CD drives: for the boot medium, and for a document if there is none yet."""

    def settled() -> None:
        pid1.searched = True
        pid1.write_facts()
        if pid1.document_network is not None and pid1.uplink.source() == "default":
            pid1.uplink.change(pid1.network_plan())
        done()

    def ended(result: Any, _problem: str) -> None:
        pid1.state.seen = result or pid1.state.seen
        pid1.learn_boot()
        if pid1.document is None:
            find_document(pid1, settled)
        else:
            settled()

    pid1.children.job("discs", lambda: blocks.find(discs=True), ended, lambda why: ended(None, why))
