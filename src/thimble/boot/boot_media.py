"""Where this boot comes from: phases that look for the host document, the medium, the loader's word."""

from __future__ import annotations

from . import blocks, document, firmware

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .blocks import Seen
    from .stage2 import Boot

    Done = Callable[[], None]


def document_(boot: Boot, done: Done) -> None:
    """The host document of a disk. With several, what was booted from decides: it is asked then."""
    found = document.volumes(boot.state.seen)
    if boot.settings.config:
        boot.document = {"url": boot.settings.config}
        done()
    elif len(found) > 1:
        _ask_firmware(boot, lambda: _fetch(boot, found, done))
    else:
        _fetch(boot, found, done)


def _fetch(boot: Boot, found: list[Seen], done: Done) -> None:
    disk = (boot.boot_facts or {}).get("medium") or {}
    chosen, wrong = document.choose(found, disk.get("disk", ""))
    if chosen is None:
        if wrong:
            boot.document = {"problem": wrong}
            boot.warn(wrong)
        done()
        return
    source = f"{chosen['device']} ({chosen['label']})"
    parse = not boot.state.record and not boot.plan.given

    def ended(result: Any, problem: str) -> None:
        if problem:
            words = f"the host document on {source} cannot be read: {problem}"
            boot.document = {"problem": words}
            boot.warn(words)
        elif result["path"]:
            boot.document = {"path": result["path"], "source": source}
            boot.document_network = result["management"]
            boot.say(f"host document found on {source}")
        done()

    def late(why: str) -> None:
        ended(None, f"that is {why}")

    boot.children.job("document", lambda: document.fetch(boot.table, chosen, parse=parse), ended, late)


def firmware_(boot: Boot, done: Done) -> None:
    """What was booted from, and whether it is a trial: known soon after readiness, which does not need it."""

    def asked() -> None:
        if boot.boot_facts and boot.boot_facts["trial"]:
            boot.trial.begin()
        boot.write_facts()
        done()

    _ask_firmware(boot, asked)


def _ask_firmware(boot: Boot, then: Done) -> None:
    """Asks the firmware once."""
    if boot.boot_facts is not None:
        then()
        return

    def ended(result: Any, problem: str) -> None:
        if problem:
            boot.ring.write("firmware", problem)
        name, secure, entry, device, boot.booted_from = result or ["uefi", 0, "", "", ""]
        boot.left = firmware.Left(name, secure=bool(secure), entry=entry, device=device)
        boot.learn_boot()
        then()

    def late(why: str) -> None:
        ended(None, f"asking the firmware is {why}")

    named = boot.settings.values.get("thimble.boot", "")
    boot.children.job("firmware", lambda: firmware.read(boot.table, named), ended, late)


def discs(boot: Boot, done: Done) -> None:
    """A second look, with CD drives, too slow to be waited for: medium, and document if none yet."""

    def settled() -> None:
        boot.searched = True
        boot.write_facts()
        if boot.document_network is not None and boot.uplink.source() == "default":
            boot.uplink.change(boot.network_plan())
        done()

    def ended(result: Any, _problem: str) -> None:
        boot.state.seen = result or boot.state.seen
        boot.learn_boot()
        if boot.document is None:
            document_(boot, settled)
        else:
            settled()

    boot.children.job("discs", lambda: blocks.find(discs=True), ended, lambda why: ended(None, why))
