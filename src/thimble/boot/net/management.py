"""The settings of the management network: a record on the state partition, or a table of the host document.

    {"nic": MAC or "", "vlan": 0, "address": "dhcp" | "10.0.0.5/24" | "off", "gateway": "", "dns": ["…"],
     "address6": "auto" | "off" | "2001:db8::5/64", "gateway6": "", "ntp": ["…"]}

`ip=` on the kernel command line wins over unconfirmed settings (confirm.py), these over the record, and that
over the document. Invalid settings give a warning, and DHCP is used instead on the NIC and VLAN they name:
nobody is locked out.
"""

from __future__ import annotations

import json

from . import ipparam
from .netaddr import is_v4, is_v6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RECORD = "management/management.json"
KEYS = ("nic", "vlan", "address", "gateway", "dns", "address6", "gateway6", "ntp")
_LIMIT = 65536
WRONG = "the management network's settings in "


def read_record(state: str) -> str:
    """The record's text, nothing if there is none."""
    try:
        with open(f"{state}/{RECORD}", errors="replace") as file:
            return file.read(_LIMIT)
    except OSError:
        return ""


def plan(
    command_line: ipparam.UplinkPlan, record: str, table: object, trial: dict[str, Any] | None = None
) -> ipparam.UplinkPlan:
    """The plan that applies. `table`: `[management]` of the document, None without one. Pure."""
    if command_line.given:
        return command_line
    if trial is not None:
        return from_table(trial, "the unconfirmed settings")
    if record:
        return _from_record(record)
    return from_table(table, "the document") if table is not None else command_line


def _from_record(text: str) -> ipparam.UplinkPlan:
    try:
        whole = json.loads(text)
        if whole["format"] == 1:
            return from_table(whole["record"], "the record")
        why = f"its format {whole['format']} is unknown"
    except (ValueError, TypeError, KeyError):
        why = "it is damaged"
    found = ipparam.UplinkPlan()
    found.warnings.append(_words("the record", [why]))
    return found


def from_table(table: object, where: str) -> ipparam.UplinkPlan:
    """The plan these settings ask for. Pure."""
    found = ipparam.UplinkPlan()
    if not isinstance(table, dict):
        found.warnings.append(_words(where, [table if isinstance(table, str) else "they are not a table"]))
        return found
    wrong = [f"there is no setting {key!r}" for key in table if key not in KEYS]
    found.source, found.stand_in = where, True
    found.device, found.vlan = _nic(table, wrong), _vlan(table, wrong)
    given = _static(table, 4, wrong) + _static(table, 6, wrong)
    dns = table.get("dns", [])
    if not isinstance(dns, list) or not all(
        isinstance(one, str) and (is_v4(one) or is_v6(one)) for one in dns
    ):
        wrong.append(f"dns {dns!r} is not a list of addresses")
    ntp = table.get("ntp", [])
    if not isinstance(ntp, list) or not all(isinstance(one, str) and one.split() == [one] for one in ntp):
        wrong.append(f"ntp {ntp!r} is not a list of servers")
    words = (table.get("address", "dhcp"), table.get("address6", "auto"))
    families = [family for family, word in ((4, words[0]), (6, words[1])) if word in ("dhcp", "auto")]
    if not wrong and not given and not families:
        wrong.append("both address and address6 are off")
    if wrong:
        found.warnings.append(_words(where, wrong))
        return found
    found.static, found.dhcp, found.dns, found.ntp = given, families, dns, ntp
    return found


def _nic(table: dict[str, Any], wrong: list[str]) -> str:
    nic = table.get("nic", "")
    if isinstance(nic, str):
        return nic.lower()
    wrong.append(f"nic {nic!r} is not a string")
    return ""


def _vlan(table: dict[str, Any], wrong: list[str]) -> int:
    vlan = table.get("vlan", 0)
    if isinstance(vlan, int) and not isinstance(vlan, bool) and 0 <= vlan <= 4094:
        return vlan
    wrong.append(f"vlan {vlan!r} is not a number from 0 to 4094")
    return 0


def _static(table: dict[str, Any], family: int, wrong: list[str]) -> list[ipparam.Static]:
    """The static address of a family, none if it has none; what is wrong is added to `wrong`."""
    key, automatic, is_address = ("address", "dhcp", is_v4) if family == 4 else ("address6", "auto", is_v6)
    whole, gateway = table.get(key, automatic), table.get("gateway" + key[7:], "")
    if whole in (automatic, "off"):
        return []
    address, slash, length = whole.partition("/") if isinstance(whole, str) else ("", "", "")
    longest = 32 if family == 4 else 128
    if not is_address(address) or not slash or not length.isdecimal() or not 1 <= int(length) <= longest:
        wrong.append(f"{key} {whole!r} is neither {automatic} nor off nor ADDRESS/LENGTH")
    elif gateway and not (isinstance(gateway, str) and is_address(gateway)):
        wrong.append(f"gateway{key[7:]} {gateway!r} is not an IPv{family} address")
    else:
        return [ipparam.Static(family, address, int(length), gateway, [])]
    return []


def _words(where: str, wrong: list[str]) -> str:
    return f"{WRONG}{where} are invalid, using DHCP: {'; '.join(wrong)}"
