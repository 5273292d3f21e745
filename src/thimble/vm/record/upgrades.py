"""Records that earlier versions wrote, step by step to today's. Pure; see `Collection(upgrades=…)`."""

from __future__ import annotations

from typing import Any

from thimble.contract.vm import VmSpec
from thimble.vm.record.spec import Noted

Tree = dict[str, Any]


def parted(old: Tree, rev: int) -> Tree:
    """Format 1 had all in one; 2 has spec, assigned and noted apart. `rev` goes on as the generation."""
    spec = {name: old[name] for name in VmSpec.__struct_fields__ if name in old}
    spec["disks"] = [_disk(disk) for disk in old["disks"]]
    spec["nics"] = [
        {name: nic[name] for name in ("name", "switch", "mac", "model") if name in nic} for nic in old["nics"]
    ]
    assigned = {
        **{name: old[name] for name in ("uuid", "uid", "created", "addresses")},
        "nics": {nic["name"]: {"mac": nic["mac"], "ip": nic.get("ip", "")} for nic in old["nics"]},
        "disks": {disk["name"]: disk.get("size_bytes", 0) for disk in old["disks"]},
        "machine_type": old.get("machine_type", ""),
    }
    noted = {name: old[name] for name in Noted.__struct_fields__ if name in old}
    return {"spec": spec, "assigned": assigned, "noted": noted, "generation": rev}


def _disk(old: Tree) -> Tree:
    empty = {name: old.get(name) or None for name in ("volume", "image", "size_bytes")}
    return {**old, **empty}


UPGRADES = (parted,)
