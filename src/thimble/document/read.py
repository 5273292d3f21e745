"""From text to a document, or to one `Problem` with every mistake, its line and column. Pure."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import msgspec

from thimble.contract.document import Document
from thimble.contract.document_api import SIZE_MAX
from thimble.contract.vm import Autostart, Intent
from thimble.core.problem import Code, Problem, Reason
from thimble.document import rules
from thimble.document.decode import Fault, decode
from thimble.document.positions import Path, Places
from thimble.document.records import digest

#: More mistakes than anybody reads at once.
FAULTS_MAX = 100
MESSAGE_MAX = 400
#: Parts that a key with dots may have: `tomllib` takes time and memory by their square.
_DEEP_KEY = re.compile(r"""(?<![\w"'.-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){200}""")


class Read(msgspec.Struct, frozen=True):
    """A document without mistakes of its own, and where its parts are in the text."""

    document: Document
    sha256: str
    places: Places

    def reason(self, path: Path, message: str, code: Code) -> Reason:
        """A blocker about the part at `path`."""
        spot = self.places.value(path)
        return Reason(message=message, code=code, path=rules.dollar(path), line=spot.line, column=spot.column)


def read(text: str) -> Read:
    """Raises `Problem` TOO_LARGE, MALFORMED (no TOML) or INVALID."""
    if len(text.encode()) > SIZE_MAX:
        raise Problem(Code.TOO_LARGE, f"a document has at most {SIZE_MAX >> 10} KiB")
    plain = text.removeprefix("\ufeff").replace("\r\n", "\n")  # some editors begin with a mark
    tree = _tree(plain)
    try:
        places = Places(plain)
        document, faults = decode(tree, Document)
        if document is not None:
            document = _completed(document, tree)
            faults = rules.faults(document)
    except RecursionError:
        raise _too_deep() from None
    if faults:
        raise _problem(faults, places)
    return Read(document, digest(text), places)


def _tree(text: str) -> dict[str, Any]:
    if _DEEP_KEY.search(text):
        raise _too_deep()
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, line, column = _where(str(error), text)
        reason = Reason(message=message, code=Code.MALFORMED, line=line, column=column)
        raise Problem(
            Code.MALFORMED,
            f"the document is not TOML: line {line}, column {column}: {message}",
            hint="https://toml.io explains how TOML is written.",
            reasons=(reason,),
        ) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # a number of thousands of digits
        raise Problem(Code.MALFORMED, f"the document is not TOML: {error}") from None


def _where(said: str, text: str) -> tuple[str, int, int]:
    """tomllib says "Expected '=' after a key (at line 3, column 5)", or "(at end of document)"."""
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", said, re.DOTALL)
    if found:
        return found[1], int(found[2]), int(found[3])
    lines = text.split("\n")
    return said.removesuffix(" (at end of document)"), len(lines), len(lines[-1]) + 1


def _too_deep() -> Problem:
    return Problem(Code.MALFORMED, "the document is nested too deeply", hint="No host needs that.")


def _completed(document: Document, tree: dict[str, Any]) -> Document:
    """A VM that is to run also starts with the host, unless `autostart` was written."""
    vms = tuple(
        vm
        if "autostart" in given
        else msgspec.structs.replace(vm, autostart=Autostart(enabled=vm.state is Intent.RUNNING))
        for vm, given in zip(document.vm, tree.get("vm", ()), strict=True)
    )
    return msgspec.structs.replace(document, vm=vms)


def _problem(faults: list[Fault], places: Places) -> Problem:
    reasons = []
    for fault in faults:
        spot = places.key(fault.path) if fault.at_key else places.value(fault.path)
        reasons.append(
            Reason(
                message=fault.message[:MESSAGE_MAX],
                path=rules.dollar(fault.path)[:MESSAGE_MAX],
                line=spot.line,
                column=spot.column,
            )
        )
    reasons = sorted(set(reasons), key=lambda reason: (reason.line, reason.column))
    count = len(reasons)
    shown = tuple(reasons[:FAULTS_MAX])
    more = f"; the first {FAULTS_MAX} are listed" if count > FAULTS_MAX else ""
    return Problem(
        Code.INVALID,
        f"the document has {count} mistakes{more}" if count > 1 else "the document has a mistake",
        hint="`thimble document schema` prints what editors complete it with.",
        reasons=shown,
    )
