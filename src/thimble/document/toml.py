"""Writes TOML v1.0.0: tables, arrays of tables, plain values. Pure.

Values that belong to a table come before its sub-tables, as TOML wants it. Invariant: `tomllib` reads back
what was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def write(tree: Mapping[str, Any]) -> str:
    """`tree` as text; empty lists are written, `None` is not."""
    return "\n".join(_table(tree, "")).lstrip("\n") + "\n"


def _table(table: Mapping[str, Any], name: str) -> Iterator[str]:
    given = {key: value for key, value in table.items() if value is not None}
    for key, value in given.items():
        if not _is_table(value):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in given.items():
        if not _is_table(value):
            continue
        path = f"{name}.{_key(key)}" if name else _key(key)
        many = isinstance(value, list)
        for one in value if many else [value]:
            yield ""
            yield f"[[{path}]]" if many else f"[{path}]"
            yield from _table(one, path)


def _is_table(value: Any) -> bool:
    """Lists of tables, too, but not empty ones: those could be of anything."""
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(key: str) -> str:
    return key if key and set(key) <= _BARE else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    text = str(value)
    plain = text.isprintable() and "\\" not in text
    return (
        _lines(text)
        if "\n" in text.strip("\n")
        else f"'{text}'"
        if '"' in text and plain and "'" not in text
        else _string(text)
    )


def _lines(text: str) -> str:
    """A text of many lines, kept readable."""
    return '"""\n' + "".join("\n" if mark == "\n" else _mark(mark) for mark in text) + '"""'


def _string(text: str) -> str:
    return '"' + "".join(map(_mark, text)) + '"'


def _mark(mark: str) -> str:
    if mark in _ESCAPES:
        return _ESCAPES[mark]
    return f"\\u{ord(mark):04x}" if ord(mark) < 32 or ord(mark) == 127 else mark
