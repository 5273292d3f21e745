"""What events and finished tasks tell: the table of event kinds, and of task results by verb.

On the wire a detail or a result is always text. Here is what the text stands for: a name or sentence, a whole
number, `true` or `false`, or a word of an enumeration. Any of them may be absent. A new kind of event, and a
new result of a task, is a row here; `tests/unit/contract/test_kinds.py` finds the ones that are not.
Imported by the API's description only, not on the way to "ready".
"""

from __future__ import annotations

import msgspec

from thimble.contract.common import TaskState
from thimble.contract.deploy import OutcomeState
from thimble.contract.hardware import Level
from thimble.contract.netboot import Stage
from thimble.contract.vm import PowerState


class Field(msgspec.Struct, frozen=True):
    """One text: what it means, with its unit, and what it stands for: `str`, `int`, `bool` or a `StrEnum`."""

    name: str
    means: str
    type: type = str


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of event. `subject`: what its `subject` names."""

    name: str
    subject: str
    summary: str
    detail: tuple[Field, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a task of `verb` leaves in its `result` when it is done."""

    verb: str
    fields: tuple[Field, ...] = ()


def _kind(name: str, subject: str, summary: str, *detail: Field) -> Kind:
    return Kind(name=name, subject=subject, summary=summary, detail=detail)


def _result(verb: str, *fields: Field) -> Result:
    return Result(verb=verb, fields=fields)


_WHY = Field("why", "the reason, where there is one")
_USER = Field("user", "who asked for it")

KINDS: tuple[Kind, ...] = (
    _kind(
        "vm.changed",
        "the VM's id",
        "A VM was created or changed, or its power state did",
        Field("name", "its name"),
        Field("state", "its power state", PowerState),
        Field("rev", "its revision", int),
        _WHY,
    ),
    _kind("vm.deleted", "the VM's id", "A VM is gone"),
    _kind(
        "datastore.changed",
        "the datastore's name",
        "A datastore was added, came, went, or was removed",
        Field("mounted", "whether it can be used", bool),
        Field("deleted", "true when it was removed", bool),
        _WHY,
    ),
    _kind("volume.changed", "the volume, DATASTORE/NAME", "A volume was created"),
    _kind("volume.deleted", "the volume, DATASTORE/NAME", "A volume is gone"),
    _kind("image.changed", "the image, DATASTORE/NAME", "An image was uploaded"),
    _kind("image.deleted", "the image, DATASTORE/NAME", "An image is gone"),
    _kind(
        "switch.changed",
        "the switch's name",
        "A switch was created or changed, works, or no longer does",
        _WHY,
    ),
    _kind("switch.deleted", "the switch's name", "A switch is gone"),
    _kind(
        "task.changed",
        "the task's id",
        "A task began, went on or ended",
        Field("state", "how it is", TaskState),
        Field("step", "the part of the work it is at"),
        Field("verb", "what it does, such as vm.create"),
        Field("of", "the id of what it works on"),
    ),
    _kind(
        "host.health",
        "the part of the host",
        "Something on the host fails, or is well again",
        Field("level", "of this part", Level),
        Field("reason", "what is wrong with it"),
        Field("host", "of the host as a whole", Level),
    ),
    _kind(
        "deploy.changed",
        "host",
        "An update or a rollback is tried, is confirmed, or failed",
        Field("of", "update or rollback"),
        Field("state", "how it went so far", OutcomeState),
        _WHY,
    ),
    _kind(
        "management.pending",
        "management",
        "New settings of the management network are tried",
        Field("seconds", "until they are undone unless somebody confirms them", int),
        _USER,
    ),
    _kind(
        "management.confirmed",
        "management",
        "The new settings stay",
        Field("over", "the address of who confirmed it"),
        _USER,
    ),
    _kind("management.undone", "management", "The settings of before are back", _USER, _WHY),
    _kind(
        "netboot.changed",
        "the switch; empty when it was turned off",
        "Booting neighbours was turned on or off",
        Field("on", "whether it is on", bool),
    ),
    _kind(
        "netboot.asked",
        "the neighbour's MAC address",
        "A neighbour asked what to boot",
        Field("number", "the neighbour's", int),
        Field("ip", "its address"),
    ),
    _kind("netboot.refused", "who asked", "Somebody asked for what is not for them", _WHY),
    _kind(
        "neighbour.changed",
        "the neighbour's MAC address",
        "A neighbour got further in its boot, failed, or was forgotten",
        Field("stage", f"how far it is: {', '.join(Stage)}; or forgotten"),
    ),
)

#: Of every task that had nothing to do, and of some that did it in another way than asked.
NOTE = Field("note", "what is to be said about it: that it was so already, or what was done instead")
_WARNING = Field("warning", "what the user should know, such as that the VM runs emulated")
_SLOT = (
    Field("slot", "the slot that starts next"),
    Field("build", "the build in it"),
    Field("version", "its version"),
)

RESULTS: tuple[Result, ...] = (
    _result("host.reboot"),
    _result("host.shutdown"),
    _result(
        "deploy.install",
        Field("disk", "the disks it is on, with a comma between"),
        Field("build", "the build installed"),
        Field("version", "its version"),
    ),
    _result("deploy.update", *_SLOT),
    _result("deploy.rollback", *_SLOT),
    _result("document.apply", Field("done", "what was done, one step a line")),
    _result("vm.create", Field("vm", "the VM's id"), _WARNING),
    _result(
        "vm.change",
        Field("pending", "what waits for the next cold start, with a semicolon between"),
        Field("kept", "volumes that stay under these names, with a comma between"),
    ),
    _result("vm.delete"),
    _result("vm.start", _WARNING),
    _result("vm.stop"),
    _result("vm.kill"),
    _result("vm.reset"),
    _result("vm.pause"),
    _result("vm.resume"),
    _result("vm.save", Field("saved", "how much memory was written, such as 1.2 GiB"), _WARNING),
    _result(
        "volume.create",
        Field("volume", "the volume, DATASTORE/NAME"),
        Field("size_bytes", "its size in bytes", int),
    ),
)

KIND_BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}
RESULT_BY_VERB: dict[str, Result] = {result.verb: result for result in RESULTS}
