"""What PID 1 wrote for us, and its socket: all there is when the agent does not answer.

<run>/console.json       url, fingerprint and a token that may look; the agent's, readable by root alone
<run>/boot.json          what PID 1 found: state, warnings, document
<run>/net/uplink.json    the management network as it is
<run>/log                the log in RAM
<run>/init.sock          takes `reboot` and `poweroff`
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec

from thimble.core.problem import Code, Problem
from thimble.dcui.model import LocalFacts

#: Bytes of the log that are looked at.
TAIL = 128 * 1024


class Access(msgspec.Struct, frozen=True):
    """How the agent is reached. All empty: it has never been ready."""

    url: str = ""
    fingerprint: str = ""
    token: str = ""


def access(run: Path) -> Access:
    try:
        return msgspec.json.decode((run / "console.json").read_bytes(), type=Access)
    except (OSError, msgspec.MsgspecError):
        return Access()


def look(run: Path) -> LocalFacts:
    """Reads what there is; an unreadable file counts as missing."""
    boot, uplink = _json(run / "boot.json"), _json(run / "net/uplink.json")
    state = boot.get("state") or {}
    document = boot.get("document") or {}
    words = [line.partition(" agent: ")[2] for line in log(run, 400) if " agent: " in line]
    return LocalFacts(
        hostname=socket.gethostname(),
        warnings=tuple(str(line) for line in boot.get("warnings") or ()),
        addresses=tuple(str(item.get("address", "")) for item in uplink.get("addresses") or ()),
        state=" ".join(str(state.get(key) or "") for key in ("kind", "device", "reason")).strip(),
        last_words=tuple(words[-5:]),
        document=str(document.get("path") or ""),
        document_source=str(document.get("source") or ""),
        managed=(run / "init.sock").exists(),
        nics=_nics(),
    )


def log(run: Path, count: int) -> tuple[str, ...]:
    """The last lines of PID 1's log."""
    text = b""
    for name in ("log.1", "log"):
        try:
            with (run / name).open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - TAIL))
                text += file.read()
        except OSError:
            pass
    return tuple(text.decode(errors="replace").splitlines()[-count:])


def tell(run: Path, verb: str) -> None:
    """Sends a request to PID 1. Raises `Problem`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        try:
            line.sendto(msgspec.json.encode({"verb": verb}), str(run / "init.sock"))
        except OSError as error:
            raise Problem(
                Code.UNAVAILABLE,
                f"PID 1 does not accept {verb!r}: {error.strerror}",
                hint="The power button and Ctrl-Alt-Del do the same.",
            ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return {}
    return found if isinstance(found, dict) else {}


def _nics() -> tuple[str, ...]:
    """MAC addresses of the cards that are hardware."""
    found = []
    for link in sorted(Path("/sys/class/net").iterdir()):
        try:
            if (link / "device").exists():
                found.append((link / "address").read_text().strip())
        except OSError:
            continue
    return tuple(found)
