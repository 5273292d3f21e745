"""The JSON Schema of the host document, made from its types, for editors to complete and check with. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from thimble.contract.document import Document

_TITLE = "Thimble host document (thimble.toml)"


def schema() -> bytes:
    """The whole of it, indented."""
    (reference,), parts = msgspec.json.schema_components([Document], ref_template="#/$defs/{name}")
    del reference
    own = parts.pop("Document")
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": _TITLE,
        **{key: value for key, value in own.items() if key != "title"},
        "$defs": {name: _without_null(part) for name, part in sorted(parts.items())},
    }
    return msgspec.json.format(msgspec.json.encode(_without_null(whole)), indent=2) + b"\n"


def _without_null(part: Any) -> Any:
    """TOML knows no null: what may be absent is simply left out."""
    if isinstance(part, list):
        return [_without_null(one) for one in part]
    if not isinstance(part, dict):
        return part
    found = {
        key: _without_null(value) for key, value in part.items() if not (key == "default" and value is None)
    }
    if isinstance(text := found.get("description"), str):
        found["description"] = " ".join(text.split())  # docstrings are indented before Python 3.13 only
    options = [one for one in found.get("anyOf", ()) if one != {"type": "null"}]
    if "anyOf" in found and len(options) == 1:
        del found["anyOf"]
        found |= options[0]
    return found
