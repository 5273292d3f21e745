"""The kinds of datastores, each in a file of its own behind the protocol in `base`.

A new kind is a file with a `KIND` and a row here.
"""

from __future__ import annotations

from importlib import import_module

from thimble.contract.storage import DatastoreCreate, DatastoreKind
from thimble.core.ids import name_reasons
from thimble.core.problem import Reason
from thimble.storage.kinds.base import Kind

#: Modules in this folder; imported when a datastore of the kind is met.
_MODULES = {
    DatastoreKind.DIRECTORY: "directory",
    DatastoreKind.DISK: "disk",
    DatastoreKind.RAM: "ram",
}


def of(kind: DatastoreKind) -> type[Kind]:
    """The class that does the work for `kind`."""
    found: type[Kind] = import_module(f"{__name__}.{_MODULES[kind]}").KIND
    return found


def reasons(request: DatastoreCreate, memory: int) -> list[Reason]:
    """What is wrong with the request itself: its name, and which fields go with which kind.

    `memory`: of the host, in bytes. Pure.
    """
    found = name_reasons(request.name, "$.name")
    for name in DatastoreKind:
        kind = of(name)
        for field in (kind.needs, *kind.also):
            given = bool(getattr(request, field))
            if given and name is not request.kind:
                found.append(Reason(message=f"{field} goes with kind {name}", path=f"$.{field}"))
            if not given and name is request.kind and field == kind.needs:
                found.append(Reason(message=f"kind {name} needs {field}", path=f"$.{field}"))
        if name is request.kind and getattr(request, kind.needs):
            found += kind.reasons(request, memory)
    return found
